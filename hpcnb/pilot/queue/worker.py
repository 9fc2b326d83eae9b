"""A worker of a queue: takes tasks from its owner by the batch, carries them out, and tells how they ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.inbox import Inbox
from hpcnb.pilot.queue.lease import Watch
from hpcnb.pilot.queue.notes import Notes
from hpcnb.pilot.queue.place import Place
from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.running import Attempt, Commands, Logs, Stopped, function
from hpcnb.pilot.queue.wire import Connection

BATCH = 0.25
"""Seconds of work that are taken at once, by what tasks took until now."""
MOST = 5000
TOLD = 500_000
"""Characters of results after which they are told before the batch is done."""
TELL = 1.0
"""Seconds after which, too."""
RETRY = 0.2
OVER, STOPPED = 0, os.EX_TEMPFAIL
"""Exit statuses of a worker that has nothing left to do, and of one that was told to end."""


def _nothing() -> None:
    """What is called where nobody wants to hear."""


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
        self.name = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
        self.logs = Logs(place / "logs" / self.name)
        self._place = place
        self._job = job
        self._alone = alone
        self._begun, self._heard = begun, heard
        self._connection: Connection | None = None
        self._taken: set[tuple[int, int]] = set()
        self._told: list[Outcome] = []
        self._each = BATCH  # seconds a task, as far as is known
        self._size, self._told_at = 0, time.monotonic()
        self._stopping = self._interruptible = False
        environ = os.environ | {"HPCNB_QUEUE": place.name}
        self._notes = Notes(place / "logs" / f"{self.name}.notes")
        commands = Commands(self.logs, self._notes, environ, script, (self._news, self._is_taken))
        self._attempt = Attempt(function(call) if call else commands, self.logs)

    def run(self) -> bool:
        """Work until there is nothing left to do, nobody to work for, or `stop` was called; whether it is the first."""
        over = False
        try:
            while not (over or self._stopping or self._alone()):
                try:
                    over = self._drain(self._connect())
                except OSError:
                    self._disconnect()
                    with contextlib.suppress(QueueError):  # a full disk; it is tried again
                        self._tell_by_file()
                    self._pause()
        except Stopped:
            pass
        finally:
            self._disconnect()
            self._tell_by_file(leaves=not over)
            self.logs.close()
            self._notes.close()
        return over

    def stop(self, *_: object) -> None:
        """End soon, from a signal's handler: what runs is killed, and is the next job's."""
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

    def _pause(self) -> None:
        with self._may_be_stopped():
            time.sleep(RETRY)  # until somebody owns the queue: there is nothing to wait for but a file

    def _connect(self) -> Connection:
        address = (Watch(self._place).owner() or {}).get("address")
        if address is None:
            raise ConnectionRefusedError("nobody owns the queue")
        self._connection = Connection(self._place, tuple(address))
        self._connection.send({"name": self.name, "host": socket.gethostname(), "pid": os.getpid(), "job": self._job})
        return self._connection

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None
        self._taken.clear()

    def _drain(self, connection: Connection) -> bool:
        """Carry out tasks; whether there is nothing left to do. Raises `OSError` when the owner is gone."""
        while not self._stopping:
            want = max(1, min(MOST, int(BATCH / self._each)))
            with self._may_be_stopped():
                answer = self._exchange(connection, want)
            if "over" in answer:
                return True
            self._begun()
            self._begun = _nothing  # once is enough
            began = time.monotonic()
            for task in answer["tasks"]:
                self._carry_out(connection, *task)
            spent = (time.monotonic() - began) / max(1, len(answer["tasks"]))
            self._each = max(spent, self._each / 8, 1e-6)
        raise Stopped

    def _carry_out(self, connection: Connection, id: int, attempt: int, payload: str, *values: dict[str, Any]) -> None:
        with self._may_be_stopped():
            outcome = self._attempt(id, attempt, payload, *values)
        if (id, attempt) in self._taken:
            return
        self._told.append(outcome)
        self._size += len(outcome.result or "") + len(outcome.error)
        if self._stopping:
            raise Stopped
        # What it adds is work for others, who should not have to wait until our batch is done.
        if outcome.action or self._size > TOLD or time.monotonic() - self._told_at > TELL:
            if self._connection is None:  # it was lost while the task ran
                raise ConnectionResetError
            self._exchange(connection, 0)

    def _exchange(self, connection: Connection, want: int) -> dict[str, Any]:
        """Tell what has ended, and get as many tasks."""
        connection.send({"outcomes": self._told, "want": want})
        while "stop" in (answer := connection.receive()):
            self._taken.update(map(tuple, answer["stop"]))
        if self._told:
            self._heard()
            self._heard = _nothing
        self._told, self._size, self._told_at = [], 0, time.monotonic()
        return dict(answer)

    def _tell_by_file(self, *, leaves: bool = False) -> None:
        """Leave what has ended in the inbox: whoever owns the queue next finds it there."""
        if self._told or leaves:
            outcomes = [[*one] for one in self._told]
            Inbox(self._place).put("finish", {"worker": self.name, "outcomes": outcomes, "leaves": leaves}, quiet=True)
        self._told, self._size = [], 0

    def _news(self) -> int:
        """The number of the file on which the owner would say that a task is no longer ours; negative: none."""
        return self._connection.fileno() if self._connection else -1

    def _is_taken(self, id: int, attempt: int) -> bool:
        """Hear what the owner says while a task runs; whether that one is no longer ours."""
        if self._connection:
            try:
                self._taken.update(map(tuple, self._connection.receive()["stop"]))
            except OSError:
                self._disconnect()
        return (id, attempt) in self._taken
