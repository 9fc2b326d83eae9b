"""A worker of a queue: takes tasks from its owner by the batch, carries them out, and tells how they ended."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.inbox import Inbox
from hpcnb.pilot.queue.lease import Watch
from hpcnb.pilot.queue.notes import Notes
from hpcnb.pilot.queue.place import Place
from hpcnb.pilot.queue.printed import Logs, named
from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.running import ENDED_EARLY, MOMENT, Attempt, Commands, Stopped, function
from hpcnb.pilot.queue.states import TaskState
from hpcnb.pilot.queue.wire import Connection

BATCH = 0.25
"""Seconds of work that are taken at once, by what tasks took until now."""
MOST = 5000
TOLD = 500_000
"""Characters of results after which they are told before the batch is done."""
TELL = 0.5
"""Seconds after which, too; and after which a task that still runs keeps nobody waiting: neither for those before it nor for those after."""
BRIEF, SHARE = 0.1, 0.1
"""How a task that took more seconds than this has ended is believed after this share of them, and `MOMENT` at most: where a batch system tells all
processes of a job to end, one that waits for another may have ended, and well, before we are told."""
RETRY = 0.2
OVER, STOPPED, NO_ROOM = 0, os.EX_TEMPFAIL, os.EX_CANTCREAT
"""Exit statuses of a worker that has nothing left to do, of one that was told to end, and of one that cannot begin yet."""


def _nothing() -> None:
    """What is called where nobody wants to hear."""


def _size(outcome: Outcome) -> int:
    return len(outcome.result or "") + len(outcome.error)


def _killed(outcome: Outcome) -> Outcome:
    return outcome._replace(state=TaskState.KILLED, code=None, error=ENDED_EARLY, result=None, action=())


class Worker:
    """One worker, from `run`, which blocks, to its end.

    Parameters
    ----------
    place : Place
    call : callable, optional
        The function of the tasks.
    script : str
        The template of the tasks; empty, and without a `call`: they are command lines.
    job : str
        The batch job that it is in.
    alone : callable
        Whether there will be no owner any more, so that there is no sense in looking for one.
    begun : callable
        Called when there are the first tasks.
    heard : callable
        Called when the owner has what the first tasks have come to.
    """

    def __init__(
        self,
        place: Place,
        *,
        call: Callable[[Any], Any] | None = None,
        script: str = "",
        job: str = "",
        alone: Callable[[], bool] = lambda: False,
        begun: Callable[[], None] = _nothing,
        heard: Callable[[], None] = _nothing,
    ) -> None:
        self.name = f"{named(os.getpid())}-{secrets.token_hex(4)}"
        self.logs = Logs(place / "logs" / self.name)
        self._place = place
        self._job = job
        self._alone = alone
        self._begun, self._heard = begun, heard
        # For the connection, and for what is to be done and to be told; who has the second one never asks for the first.
        # The second thread waits without either for what the owner says of a task that takes long.
        self._talking, self._lock = threading.Lock(), threading.Lock()
        self._connection: Connection | None = None
        self._taken: set[tuple[int, int]] = set()
        self._tasks: deque[list[Any]] = deque()
        self._runs: tuple[int, int] | None = None
        self._told: list[Outcome] = []
        self._believed: list[float] = []  # each of them, from when on
        self._doubted = math.inf  # what is to be believed later than this never is
        self._each = BATCH  # seconds a task, as far as is known
        self._spent, self._ran = 0.0, 0
        self._size = self._few = 0
        self._told_at = self._since = time.monotonic()
        self._beside: threading.Thread | None = None
        self._busy, self._low = threading.Event(), threading.Event()
        self._ended = self._listens = False
        self._over = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = self._interruptible = False
        environ = os.environ | {"HPCNB_QUEUE": place.name}
        self._notes = Notes(place / "logs" / f"{self.name}.notes")
        self._commands = Commands(self.logs, self._notes, environ, script)
        self._attempt = Attempt(function(call) if call else self._commands, self.logs, self._calm)

    def run(self) -> bool:
        """Work until there is nothing left to do, nobody to work for, or `stop` was called; whether it is the first."""
        over = False
        try:
            while not (over or self._stopping or self._alone()):
                try:
                    self._connect()
                    over = self._drain()
                except OSError:
                    self._disconnect()
                    with contextlib.suppress(QueueError):  # a full disk; it is tried again
                        self._tell_by_file()
                    self._pause()
        except Stopped:
            pass
        finally:
            with self._lock:
                self._ended = True
            self._disconnect()
            self._tell_by_file(leaves=not over)
            self._dismiss()
            self.logs.close()
            self._notes.close()
        return over

    def stop(self, number: int = 0, *_: object) -> None:
        """End soon, from a signal's handler: what runs is killed, and is the next job's; told by SIGTERM, others of the job may have been told before."""
        if number == signal.SIGTERM and not self._stopping:
            self._doubted = time.monotonic()
        self._stopping = True
        if self._interruptible:
            raise Stopped

    @contextlib.contextmanager
    def _may_be_stopped(self) -> Iterator[None]:
        self._interruptible = True
        try:
            if self._stopping:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def _calm(self) -> None:
        self._interruptible = False

    def _pause(self, seconds: float = RETRY) -> None:
        with self._may_be_stopped():
            time.sleep(seconds)  # until somebody owns the queue, by default: there is nothing to wait for but a file

    def _connect(self) -> None:
        address = (Watch(self._place).owner() or {}).get("address")
        if address is None:
            raise ConnectionRefusedError("nobody owns the queue")
        connection = Connection(self._place, tuple(address))
        me = {"name": self.name, "host": socket.gethostname(), "pid": os.getpid(), "job": self._job}
        with self._talking:
            if self._connection or self._ended:  # the other thread was faster
                connection.close()
                return
            with self._lock:  # what we were given before and have not begun we have dropped
                holds = [self._runs] if self._runs and self._runs not in self._taken else []
            try:
                connection.send(me | {"holds": holds})
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def _disconnect(self) -> None:
        """What we were given and have not begun is the owner's again, and given out by him."""
        if self._connection:
            self._connection.cut()  # the other thread may be waiting for an answer
        with self._talking:
            self._lose()

    def _lose(self) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None
            self._tasks.clear()

    def _drain(self) -> bool:
        """Carry out tasks; whether there is nothing left to do. Raises `OSError` when the owner is gone."""
        while not self._stopping:
            doubtful = max(0.0, max(self._believed, default=0.0) - time.monotonic())
            with self._may_be_stopped(), self._talking:
                # The second thread may have got some just now.
                if not self._tasks and "over" in self._exchange(self._want(), waits=not doubtful):
                    return True
            if doubtful and not self._tasks:
                self._pause(doubtful)
            self._look_beside()
            while task := self._next():
                self._carry_out(*task)
        raise Stopped

    def _want(self) -> int:
        """How many tasks are to be got at once, by what those have taken that were carried out since this was asked last."""
        with self._lock:
            if self._ran:
                self._each = max(self._spent / self._ran, self._each / 8, 1e-6)
            self._spent, self._ran = 0.0, 0
        want = max(1, min(MOST, int(BATCH / self._each)))
        self._few = want // 4
        return want

    def _next(self) -> list[Any] | None:
        with self._lock:
            self._since = time.monotonic()
            if self._few and len(self._tasks) == self._few:
                self._low.set()
            if not self._tasks:
                return None
            task = self._tasks.popleft()
            self._runs = task[0], task[1]
            return task

    def _carry_out(self, id: int, attempt: int, payload: str, *values: dict[str, Any]) -> None:
        outcome = None
        # Not the context manager: this is done ten thousand times a second.
        self._interruptible = True
        try:
            if self._stopping:
                raise Stopped
            if (id, attempt) not in self._taken:  # while one before it in the batch ran
                outcome = self._attempt(id, attempt, payload, *values)
        finally:
            self._calm()
            self._has_ended(outcome)
        if self._stopping:
            raise Stopped
        # What it adds is work for others, who should not have to wait until our batch is done.
        if outcome and (outcome.action or self._size > TOLD or time.monotonic() - self._told_at > TELL):
            with self._talking:
                self._exchange(0)

    def _has_ended(self, outcome: Outcome | None) -> None:
        """What ran runs no longer; None: nothing is to be told of it."""
        with self._lock:
            self._runs = None
            now = time.monotonic()
            took = now - self._since
            self._spent, self._ran = self._spent + took, self._ran + 1
            if outcome:  # of what was taken from us the owner keeps what it has printed
                self._told.append(outcome)
                self._believed.append(now + min(MOMENT, (took - BRIEF) * SHARE) if took > BRIEF else now)
                self._size += _size(outcome)
            if self._listens:
                os.eventfd_write(self._over, 1)

    def _exchange(self, want: int, back: Sequence[tuple[int, int]] = (), *, waits: bool = False) -> dict[str, Any]:
        """Tell what has ended, and what is not begun, and get as many tasks: those that are there, or, if one `waits`, any."""
        if self._connection is None:  # it was lost while a task ran
            raise ConnectionResetError
        with self._lock:
            told = self._told[: self._number_believed(time.monotonic())]
        try:
            self._connection.send({"outcomes": told, "back": back, "want": want, "waits": waits})
            while "stop" in (answer := self._connection.receive()):
                self._taken.update(map(tuple, answer["stop"]))
        except BaseException:  # an interrupt, too: with half an answer the other thread could not go on
            self._connection.cut()
            raise
        with self._lock:
            self._forget(len(told))
            self._told_at = time.monotonic()
            self._tasks.extend(answer.get("tasks", ()))
        if told:
            self._heard()
            self._heard = _nothing
        if answer.get("tasks"):
            self._begun()
            self._begun = _nothing  # once is enough
        return dict(answer)

    def _number_believed(self, by: float) -> int:
        """Of what has ended: one after the other, as it is told."""
        return next((n for n, since in enumerate(self._believed) if since > min(by, self._doubted)), len(self._told))

    def _forget(self, number: int) -> None:
        """So many were told."""
        del self._told[:number], self._believed[:number]
        self._size = sum(map(_size, self._told))

    # -- the second thread ---------------------------------------------------------------------------------------------

    def _look_beside(self) -> None:
        """Have a second thread talk to the owner while this one carries out the tasks that we have."""
        if self._beside is None:
            self._beside = threading.Thread(target=self._talk, name=f"worker {self.name}", daemon=True)
            self._beside.start()
        self._busy.set()

    def _dismiss(self) -> None:
        """End it."""
        if self._beside:
            self._busy.set()
            self._low.set()
            os.eventfd_write(self._over, 1)
            self._beside.join()
        os.close(self._over)

    def _talk(self) -> None:
        """Get tasks before the last one is done; whenever one takes long, tell of those before it, give back those after it, and listen."""
        while self._busy.wait() and not self._ended:
            self._low.wait(TELL)
            with self._talking:
                long = self._talk_once()
            if long:
                self._listen(long)

    def _talk_once(self) -> tuple[int, int] | None:
        """Returns what takes long."""
        low = self._low.is_set()
        self._low.clear()
        with self._lock:
            if not (self._tasks or self._told or self._runs or self._ended):
                self._busy.clear()
            long = self._runs if time.monotonic() - self._since > TELL else None
            back = [(id, attempt) for id, attempt, *_ in self._tasks] if long else []
            if long:
                self._tasks.clear()
        if self._connection and (low or back or (long and self._told)):
            with contextlib.suppress(OSError):  # of which we hear again
                self._exchange(0, back) if long else self._exchange(self._want())
        return long

    def _listen(self, long: tuple[int, int]) -> None:
        """Hear whether a task that takes long is no longer ours, and tell a new owner that it is."""
        while self._still(long):
            if long in self._taken:
                self._commands.kill(*long)
            try:
                if not self._connection:
                    self._connect()
                    with self._talking:
                        self._exchange(0)  # the greeting alone is not heard
                elif self._is_said():
                    with self._talking:
                        self._hear()
            except OSError:
                with self._talking:
                    self._lose()
                select.select([self._over], [], [], RETRY)

    def _still(self, long: tuple[int, int]) -> bool:
        """Whether a task still runs; if so its end is written to `_over`."""
        with self._lock:
            self._listens = self._runs == long and not self._ended
            if not self._listens:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._over)
            return self._listens

    def _is_said(self) -> bool:
        """Wait until the owner says something, or the task that runs has ended; whether it is the first."""
        with self._lock:
            connection = self._connection
            if connection is None or connection.readable():
                return True
            files = [self._over, connection.fileno()]
        # Should the other thread close it now, it has written to the first.
        return self._over not in select.select(files, [], [])[0]

    def _hear(self) -> None:
        """Hear what the owner says of itself: what is no longer ours."""
        while self._connection and self._connection.readable():  # the other thread may have read it
            self._taken.update(map(tuple, self._connection.receive()["stop"]))

    def _tell_by_file(self, *, leaves: bool = False) -> None:
        """Leave what has ended in the inbox: whoever owns the queue next finds it there."""
        with self._lock:
            number = self._number_believed(math.inf if leaves else time.monotonic())
            outcomes = [[*one] for one in self._told[:number]]
            if leaves:
                outcomes += [[*_killed(one)] for one in self._told[number:]]
        if outcomes or leaves:
            Inbox(self._place).put("finish", {"worker": self.name, "outcomes": outcomes, "leaves": leaves}, quiet=True)
        with self._lock:
            self._forget(len(outcomes))
