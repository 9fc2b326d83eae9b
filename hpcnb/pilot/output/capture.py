"""Catches what tasks print on a worker, each task's for itself, whatever thread it comes from.

All text goes to the worker's log, as without us; what is added is whose it is. Python's streams know the thread. What C code
and child processes write to the descriptors is the only call's that runs; where several run at once it is the
worker's, but children have a file for each thread (see `hpcnb.pilot.output.children`). A call that prints nothing costs
one question for the size of the log at its beginning and one at its end.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from distributed.utils import thread_state  # type: ignore[attr-defined]

from hpcnb.pilot.output.index import Index, Tape, appending, write
from hpcnb.pilot.output.outbox import Outbox
from hpcnb.pilot.output.speaker import Speaker, mine, of_coroutine
from hpcnb.pilot.output.tape import INDEX, RAW, SHOWN
from hpcnb.pilot.worker.running import Job

__all__ = ["ATTEMPT", "Capture"]

ATTEMPT = "hpcnb_attempt"
"""The annotation of a task that is tried again: which attempt this is."""
OFTEN = 0.05
"""Seconds between two looks at what is being printed."""
SELDOM = 0.2
"""The same while something runs and is silent."""
QUIET = 2.0
"""Seconds of rest after which nobody looks any more."""
_seek, _END = os.lseek, os.SEEK_END
FRAGMENTS = 2000
LONG = 1 << 14
"""So many pieces of text, or one so long, are written at once."""
MANY = 1 << 16
"""Bytes of a log that are read in one piece to be shown."""
FEW = 20
"""Lines between two looks that are written at once, so that they are in order with those of C code and children."""


class Capture:
    """Whose text a worker's log holds.

    Parameters
    ----------
    log : Path
        What the process's descriptors 1 and 2 append to.
    begin : int
        Where in it this process began.
    worker, host : str
        Their names.
    send : callable
        Takes a message for the scheduler, from any thread.
    jobs : callable
        The calls of ours that run.
    others : callable
        How many tasks run, ours among them.
    attempt : callable
        Of a task, by its key.
    several : bool
        Whether several may run at once.
    """

    def __init__(
        self,
        log: Path,
        *,
        begin: int,
        worker: str,
        host: str,
        send: Callable[[dict[str, Any]], object],
        jobs: Callable[[], Iterable[Job]] = tuple,
        others: Callable[[], int] = lambda: 0,
        attempt: Callable[[Any], int] = lambda key: 1,
        several: bool = False,
    ) -> None:
        self._log, self._send = log, send
        self._jobs, self._others, self._attempt = jobs, others, attempt
        self.outbox = Outbox()
        self._several = several
        # Whoever prints while it is being printed (a destructor, say) has the lock already.
        self._lock = threading.RLock()
        self._index = Index(log.with_suffix(INDEX), worker=worker, host=host)
        # Tasks may redirect the descriptor itself, to catch what C code writes, or close it.
        self._out = os.dup(1)
        self.tape = self._index.tape(self._out, log, begin)
        self.worker = Speaker(number=0, key="", said=True)
        self._plain: dict[int, Speaker] = {}
        self._number = 0
        self._warmed: set[Speaker] = set()
        self._wake = threading.Event()
        self._asleep, self._begun = True, False
        threading.Thread(target=self._keep, name="hpcnb-output", daemon=True).start()

    # -- what calls say of themselves ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A call of ours is about to begin in this thread."""
        if self._several and _seek(self._out, 0, _END) != self.tape.end:  # else what is new is its own, or nobody's
            self.claim()
        self._begun = True  # and then it is seen whether the keeper sleeps, who looks here just before he does
        if self._asleep:
            self._wake.set()

    def end(self, job: Job) -> None:
        """It has ended; may be said twice."""
        self._leave(job)
        if self.outbox.full:  # ahead of the news that the task has ended
            with self._lock:
                self._publish(last=True)

    def tape_of_children(self) -> int:
        """Where processes for this thread's task may write."""
        tape = self.before_child()
        return self._out if tape is None else tape.descriptor

    def show(self, key: Any, data: bytes) -> bool:
        """Have displayed, behind all that was printed before, what this thread's task wants to be; False: it is not this key's."""
        who = self.current()
        if who is None or who.key != key:
            return False
        self.flush(who)
        if mine.tape is not None:
            with self._lock:
                self._claim(mine.tape, mine.tape.owner or self.worker)
        with self._lock:
            self.claim()
            self.outbox.add((who.key, who.member, who.attempt, SHOWN), time.time(), data)
        return True

    def carry(self) -> None:
        """What this thread runs goes on as a coroutine, in another one."""
        of_coroutine.set(self.current())

    def turn(self, job: Job, member: int) -> None:
        """The next call of a batch begins, or the same one again."""
        self._leave(job)
        if job.member == member:
            job.repeated += 1
        else:
            job.repeated, job.member = 0, member

    def _leave(self, job: Job) -> None:
        if _seek(self._out, 0, _END) != self.tape.end:
            self.claim()
        if mine.tape is not None:
            self._claim_own(mine.tape)
        if job.speaker is not None:
            speaker, job.speaker, mine.speaker = job.speaker, None, None
            self._close(speaker)

    def _claim_own(self, tape: Tape) -> None:
        with self._lock:
            self._claim(tape, tape.owner or self.worker)
            tape.owner = None

    # -- whose it is -----------------------------------------------------------------------------------------------------

    def speaker(self) -> Speaker:
        """Who speaks in this thread."""
        key = getattr(thread_state, "key", None)
        if key is None:
            starter = getattr(threading.current_thread(), "hpcnb_speaker", None)
            return of_coroutine.get() or starter or self.worker
        ident = threading.get_ident()
        for job in self._jobs():
            if job.thread == ident and job.key is not None:
                mine.speaker = self._of_job(job)
                return mine.speaker
        known, started = self._plain.get(ident), thread_state.start_time
        if known is None or known.started is not started:
            if known is not None:
                self._close(known)
            known = self._plain[ident] = self._new(key, started=started)
        return known

    def current(self) -> Speaker | None:
        """The task of this thread, or of what started it; None: it is none's."""
        found = mine.speaker or self.speaker()
        return found if found is not self.worker else None

    def _of_job(self, job: Job) -> Speaker:
        if job.speaker is None:
            job.speaker = self._new(job.key, member=job.member, repeated=job.repeated)
        found: Speaker = job.speaker
        return found

    def _new(self, key: Any, *, member: int | None = None, repeated: int = 0, started: Any = None) -> Speaker:
        with self._lock:
            self._number += 1
            attempt = self._attempt(key) + repeated
            return Speaker(number=self._number, key=key, member=member, attempt=attempt, started=started)

    def only(self) -> Speaker:
        """The only one that runs, if there is but one; else the worker."""
        running = [job for job in self._jobs() if not job.lost]
        if len(running) != 1 or running[0].key is None or self._others() > 1:
            return self.worker
        return self._of_job(running[0])

    # -- what they say ---------------------------------------------------------------------------------------------------

    def turn_to(self, who: Speaker, kind: int) -> None:
        """What somebody prints next is of another kind: level and stream in one number."""
        if who.parts:
            self.flush(who)
        who.kind = kind

    def heard(self, who: Speaker, text: str) -> None:
        """Write what has been printed, or see to it that it is written soon.

        The first lines are written at once, the others a moment later, together.
        """
        if ("\n" in text and who.recent < FEW) or len(who.parts) > FRAGMENTS or len(text) > LONG:
            self.flush(who)
        elif not who.warm:
            self._warm(who)

    def flush(self, speaker: Speaker | None = None) -> None:
        """Write what is not written yet."""
        who = speaker or mine.speaker or self.speaker()
        with self._lock:
            number = len(who.parts)
            if not number:
                return
            text = "".join(who.parts[:number])  # a thread of its own may be adding to it
            del who.parts[:number]
            self.claim()
            if (tape := mine.tape) is not None and tape.owner is who:
                self._claim(tape, who)
            data = _encoded(text)
            write(self._out, data)
            end = self.tape.size()
            self._note(who, self.tape, end - self.tape.end, who.kind, data)
            who.recent += 1
            if who.recent <= FEW:  # should the process be killed now, it is known whose this is
                self._index.write()
        if not who.warm:
            self._warm(who)

    def _warm(self, who: Speaker) -> None:
        who.warm = True
        self._warmed.add(who)
        if self._asleep:
            self._wake.set()

    def claim(self) -> None:
        """Attribute what was written by other means."""
        with self._lock:
            if self.tape.size() != self.tape.end:
                self._claim(self.tape, self.only())

    def _claim(self, tape: Tape, who: Speaker) -> None:
        while length := min(tape.size() - tape.end, MANY):
            data = tape.read(tape.end, length)
            if length == MANY and (whole := data.rfind(b"\n") + 1):  # a character that is cut cannot be shown
                data = data[:whole]
            self._note(who, tape, len(data), RAW, data)

    def _note(self, who: Speaker, tape: Tape, length: int, kind: int, data: bytes) -> None:
        now = round(time.time(), 3)
        self._index.note(who, tape, length, kind, now)
        if who is not self.worker:
            who.open = not data.endswith(b"\n")
            self.outbox.add((who.key, who.member, who.attempt, kind & 3), now, data)

    def _close(self, who: Speaker) -> None:
        with self._lock:
            self.flush(who)
            self._warmed.discard(who)
            who.warm = False
            if who.said:
                self._index.over(who)
                if who.open:  # nobody is to wait for the rest of it
                    self.outbox.add((who.key, who.member, who.attempt, who.kind & 3), time.time(), b"\n")

    # -- from time to time -----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """In a thread of its own."""
        while True:
            self._asleep = True
            if not (self._begun or self._warmed or any(True for _ in self._jobs())):
                self._wake.wait()
            self._asleep = False
            self._wake.clear()
            rest = 0.0
            while rest < QUIET:
                self._begun = False
                self._tick()
                pause = OFTEN if self._warmed else SELDOM
                rest = 0.0 if self._warmed or any(True for _ in self._jobs()) else rest + pause
                if self._wake.wait(pause):
                    self._wake.clear()

    def _tick(self) -> None:
        with self._lock:
            for who in list(self._warmed):
                who.warm, who.recent = False, 0
                self._warmed.discard(who)
                self.flush(who)  # which warms him again, as what he says from now on does
            self.claim()
            for tape in self._index.tapes[1:]:
                self._claim(tape, tape.owner or self.worker)
            self._publish()

    def _publish(self, *, last: bool = False) -> None:
        self._index.write()
        if message := self.outbox.message(last=last):
            self._send(message)

    # -- files beside the log --------------------------------------------------------------------------------------------

    def before_child(self) -> Tape | None:
        """Have in the log what this thread has printed; the file of its own for what children of its task write."""
        who = self.current() if getattr(thread_state, "key", None) is not None else None
        if who is None:
            return None
        self.flush(who)
        if not self._several:
            return None
        tape = mine.tape or self._new_tape()
        if tape.owner is not who:
            with self._lock:  # what an earlier call's children still had to say is nobody's any more
                self._claim(tape, tape.owner or self.worker)
                tape.owner = who
        return tape

    def _new_tape(self) -> Tape:
        with self._lock:
            path = self._log.with_suffix(f".{len(self._index.tapes)}.log")
            descriptor = appending(path)
            mine.tape = self._index.tape(descriptor, path, _seek(descriptor, 0, _END))
        return mine.tape


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")
