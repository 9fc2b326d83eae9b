"""A task of a queue, by qdo's names."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.running import command, filled
from hpcnb.queue.claim import Claim
from hpcnb.queue.task import QueuedTask

if TYPE_CHECKING:
    from hpcnb.compat.qdo.queue import Queue


@contextlib.contextmanager
def as_theirs() -> Iterator[None]:
    """Raise what qdo's programs catch."""
    try:
        yield
    except QueueError as exc:
        raise ValueError(str(exc)) from exc


class Task:
    """A task of a queue, as it was when it was asked for; one from `Queue.get` is ours to carry out.

    Attributes
    ----------
    id : int
    task : object
    state : str
    err : int or None
        The exit status of a command that has ended.
    message : str
        Why it failed.
    priority : int
    """

    WAITING = "Waiting"
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    KILLED = "Killed"
    VALID_STATES = (WAITING, PENDING, RUNNING, SUCCEEDED, FAILED, KILLED)

    def __init__(self, queue: Queue, found: QueuedTask | Claim) -> None:
        self.queue = queue
        self.id = found.id
        self.task = found.task
        self._claim = found if isinstance(found, Claim) else None
        self.state = self.RUNNING if isinstance(found, Claim) else found.state
        self._priority = None if isinstance(found, Claim) else found.priority

    def __repr__(self) -> str:
        return f"<qdo.Task {self.id} {self.state} {self.task!r}>"

    @property
    def priority(self) -> int:
        return int(self._details()["priority"]) if self._priority is None else self._priority

    def _details(self) -> dict[str, Any]:
        return self.queue.ours.task(self.id)

    def _last(self) -> dict[str, Any]:
        return next(reversed(self._details()["attempts"]), {})

    @property
    def err(self) -> int | None:
        code = self._last().get("code")
        return None if code is None else int(code)

    @property
    def message(self) -> str:
        return str(self._last().get("error") or "")

    @property
    def jobid(self) -> str:
        return str(self._last().get("job") or "")

    def todict(self) -> dict[str, Any]:
        """It as plain values."""
        return {word: getattr(self, word) for word in ("id", "task", "state", "err", "message", "priority")}

    def set_state(self, state: str, err: int | None = None, message: str | None = None) -> None:
        """Say how it ended, or move it by hand."""
        if state not in self.VALID_STATES:
            raise ValueError(f"{state!r} is no state of a task; they are {', '.join(self.VALID_STATES)}")
        claim, self._claim = self._claim, None
        with as_theirs():
            if claim and state == self.SUCCEEDED:
                claim.succeed()
            elif claim and state == self.FAILED:
                claim.fail(message or "", code=err)
            else:
                self.queue.ours.set_state(self.id, state)
        self.state = state

    def run(self, script: str | None = None, func: Callable[..., Any] | None = None) -> Any:
        """Carry it out here, as `Queue.do` does, and record how it ended; returns what the function did, or the exit status."""
        if func:
            try:
                value = called(func)(self.task)
            except Exception as exc:  # whatever the user's function raises is the task's
                self.set_state(self.FAILED, err=1, message=f"{type(exc).__name__}: {exc}")
                return None
            self.set_state(self.SUCCEEDED)
            return value
        try:
            line = filled(template(script), self.task) if script else command(self.task)
        except ValueError as exc:  # a value that is missing, or no command
            self.set_state(self.FAILED, err=1, message=str(exc))
            return 1
        err = subprocess.run(["/bin/sh", "-c", line], check=False, stdin=subprocess.DEVNULL).returncode
        self.set_state(self.FAILED if err else self.SUCCEEDED, err=err, message=f"exit status {err}" if err else "")
        return err


def called(func: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function as ours are: of the task."""

    def call(task: Any) -> Any:
        if isinstance(task, dict):
            return func(**task)
        return func(*task) if isinstance(task, list) else func(task)

    return call


def template(script: str) -> str:
    """A script as our template: qdo puts the task behind it, as it is, for the shell to take apart."""
    if "{" in script:
        return script
    return f"exec sh -c {shlex.quote(script + ' ')}{{0}}"
