"""A queue, by qdo's names."""

from __future__ import annotations

import getpass
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from hpcnb.compat.qdo.task import Task, as_theirs, called, template
from hpcnb.pilot.queue.states import TaskState
from hpcnb.queue import queue as ours
from hpcnb.queue.task import QueuedTask
from hpcnb.views.queue import tasks_text


class Queue:
    """A queue, by qdo's names; `ours` is the `hpc.Queue`."""

    ACTIVE = "Active"
    PAUSED = "Paused"

    def __init__(self, queue: ours.Queue, worker: str | None = None) -> None:
        self.ours = queue
        self.name = queue.name
        self.user = getpass.getuser()
        self.worker = worker

    def __str__(self) -> str:
        return str(self.ours)

    def __repr__(self) -> str:
        return f"<qdo.Queue {self.name}>"

    @property
    def state(self) -> str:
        return str(self.status()["state"])

    def status(self) -> dict[str, Any]:
        """Name, user, state and the number of tasks in each state."""
        with as_theirs():
            return self.ours.status()

    # -- adding --------------------------------------------------------------------------------------------------------

    def add(self, task: Any, id: None = None, priority: float | None = None, requires: Any = None) -> int:
        """Add a task; returns its id."""
        above = [requires] if isinstance(requires, int) else list(requires or [])
        return self.add_multiple([task], None if id is None else [id], [priority or 0], [above] if above else None)[0]

    def add_multiple(
        self,
        tasks: Iterable[Any],
        ids: None = None,
        priorities: Sequence[float] | None = None,
        requires: Sequence[Any] | None = None,
    ) -> list[int]:
        """Add tasks; returns their ids, in order."""
        if ids is not None:
            raise ValueError("ids are given by the queue")
        rows = list(tasks)
        above = [[one] if isinstance(one, int) else list(one or []) for one in requires or [()] * len(rows)]
        urgent = [int(one) for one in priorities or [0] * len(rows)]
        if not len(rows) == len(above) == len(urgent):
            raise ValueError("tasks, priorities and requires are not of one length")
        added: list[int] = []
        with as_theirs():
            for priority, group in groupby(range(len(rows)), key=urgent.__getitem__):
                places = list(group)
                edges = [above[place] for place in places] if any(above) else ()
                added += self.ours.add_multiple([rows[place] for place in places], priority=priority, requires=edges)
        return added

    def loadfile(self, filename: str, priority: float | None = None) -> list[int]:
        """Add each line of a file as a command; ``-`` is stdin."""
        with as_theirs():
            return list(self.ours.load("/dev/stdin" if filename == "-" else filename, priority=int(priority or 0)))

    # -- working -------------------------------------------------------------------------------------------------------

    def get(self, timeout: float = 60, jobid: str | None = None) -> Task | None:
        """Take a task, to be carried out here; None when there is none within so many seconds."""
        with as_theirs():
            found = self.ours.get(timeout=timeout)
        return Task(self, found) if found else None

    def do(
        self,
        timeout: float = 60,
        runtime: float | None = None,
        script: str | None = None,
        func: Callable[..., Any] | None = None,
        quiet: bool = True,
    ) -> None:
        """Carry out tasks until none came for `timeout` seconds, or begin none after `runtime` seconds.

        A function is called with a dict's values by name, with those of a list in order. A script without a ``{`` in it gets
        the task behind it, as it is.
        """
        end = None if runtime is None else time.monotonic() + runtime
        while end is None or time.monotonic() < end:
            left = timeout if end is None else max(0.0, min(timeout, end - time.monotonic()))
            if (task := self.get(timeout=left)) is None:
                return
            if not quiet:
                print(f"{task.id}: {task.task}", file=sys.stderr, flush=True)  # noqa: T201 - asked for
            task.run(script=script, func=func)

    def launch(
        self,
        nworkers: int = 1,
        jobs: int = 1,
        *,
        pack: bool = True,
        script: str | None = None,
        func: Callable[..., Any] | None = None,
        walltime: str | None = None,
        batchqueue: str | None = None,
        batch_opts: str = "",
        cores_per_worker: int | None = None,
        taskcores: int | None = None,
        **known: Any,
    ) -> list[str]:
        """Submit `jobs` jobs of so many workers each, or, without `pack`, a job for each worker; returns their ids.

        Of qdo's other options ``keep_env``, ``verbose``, ``timeout`` and ``runtime`` are taken and mean nothing here: jobs have
        the environment of the site, and run as long as there is work.
        """
        if odd := set(known) - {"keep_env", "verbose", "timeout", "runtime"}:
            raise ValueError(
                f"launch({min(odd)}=…) is not known here; what the batch system is to do goes into batch_opts="
            )
        wishes = {
            "walltime": walltime,
            "partition": batchqueue,
            "cores_per_worker": taskcores or cores_per_worker,
            "options": _options(batch_opts),
            "script": template(script) if script else "",
            "func": called(func) if func else None,
        }
        asked: dict[str, Any] = {word: value for word, value in wishes.items() if value}
        with as_theirs():
            if nworkers == 1 or not pack:
                return self.ours.launch(jobs * nworkers, **asked)
            return [job for _ in range(jobs) for job in self.ours.launch(nworkers, pack=True, **asked)]

    # -- looking -------------------------------------------------------------------------------------------------------

    def tasks(self, id: int | None = None, state: str | None = None, exitcode: int | None = None) -> Any:
        """The task of an id; or a list of all, of those in a state, of those that ended with an exit status."""
        if state is not None and state not in Task.VALID_STATES:
            raise ValueError(f"{state!r} is no state of a task; they are {', '.join(Task.VALID_STATES)}")
        with as_theirs():
            if id is not None:
                found = self.ours.task(id)
                row = (id, TaskState.of(found["state"]), found["priority"], 0, json.dumps(found["task"]), None)
                return Task(self, QueuedTask.of(row))
            rows = [Task(self, one) for one in self.ours.tasks(state)]
        if exitcode is None:
            return rows
        ended = Task.FAILED if exitcode else Task.SUCCEEDED
        return [one for one in rows if one.state == ended and one.err == exitcode]

    def print_tasks(self, state: str | None = None, exitcode: int | None = None) -> None:
        """Print a table of tasks."""
        wanted = {one.id for one in self.tasks(state=state, exitcode=exitcode)}
        print(tasks_text([one.to_json() for one in self.ours.tasks(state) if one.id in wanted]))  # noqa: T201

    # -- changing ------------------------------------------------------------------------------------------------------

    def set_task_state(self, taskid: int, state: str, err: int | None = None, message: str | None = None) -> None:
        """Move a task into a state by hand."""
        self.tasks(id=taskid).set_state(state, err=err, message=message)

    def _again(self, ids: list[int], again: Callable[[list[int]], int], priority: float | None) -> int:
        with as_theirs():
            count = again(ids) if ids else 0
            if ids and priority is not None:
                self.ours.set_priority(ids, int(priority))
        return count

    def retry(self, priority: float | None = None, exitcode: int | None = None) -> int:
        """Have failed tasks carried out again; returns how many."""
        ids = [one.id for one in self.tasks(state=Task.FAILED, exitcode=exitcode)]
        return self._again(ids, self.ours.retry, priority)

    def revive(self, priority: float | None = None) -> int:
        """Have killed tasks carried out again; returns how many."""
        return self._again([one.id for one in self.tasks(state=Task.KILLED)], self.ours.revive, priority)

    def rerun(self, priority: float | None = None, exitcode: int | None = None, state: str | None = None) -> int:
        """Have tasks that have ended carried out again, those too that succeeded; returns how many."""
        ids = [one.id for one in self.tasks(state=state, exitcode=exitcode)]
        return self._again(ids, lambda chosen: self.ours.rerun(chosen, force=True), priority)

    def recover(self, priority: float | None = None) -> int:
        """Take back the tasks of workers that have died; returns how many. What runs goes on."""
        with as_theirs():
            return self.ours.recover()

    def pause(self) -> None:
        """Give out no further tasks."""
        self.ours.pause()

    def resume(self) -> None:
        """Give out tasks again."""
        self.ours.resume()

    def delete(self) -> None:
        """Remove the queue with its tasks."""
        with as_theirs():
            self.ours.delete()


_LONG = {"-A": "--account", "-C": "--constraint", "-L": "--licenses", "-p": "--partition", "-q": "--qos"}


def _options(text: str) -> dict[str, str | None]:
    """Options of a batch system, as our configuration has them."""
    found: dict[str, str | None] = {}
    last = ""
    for word in shlex.split(text):
        if word.startswith("-"):
            last, equals, value = word.partition("=")
            last = _LONG.get(last, last)
            found[last] = value if equals else None
        elif last:
            found[last] = word
        else:
            raise ValueError(f"batch_opts={text!r} does not begin with an option")
    return found
