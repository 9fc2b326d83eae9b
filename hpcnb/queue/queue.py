"""`hpc.Queue`: tasks that outlive jobs, kernels and laptops."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.place import Place
from hpcnb.pilot.queue.states import TaskState
from hpcnb.queue.claim import Claim
from hpcnb.queue.desk import Asking, Desk, desk_of
from hpcnb.queue.documents import WORKFLOWS, commands, workflow
from hpcnb.queue.drain import drain
from hpcnb.queue.following import follow
from hpcnb.queue.introspection import Introspection, introspect, sample
from hpcnb.queue.launch import Launched, certify, launch, plan
from hpcnb.queue.task import QueuedTask, check_ways, id_of, ids, lines_with_edges, per_task, plain_lines, policy
from hpcnb.views.queue import queues_text

__all__ = ["Queue", "queues"]

PAGE = 10_000


class Queue:
    """A persistent queue, in files at its site. Made by `create`, found by `connect`.

    Adding, looking and changing need nothing that runs; the tasks are carried out by what `launch` or `do` start.

    Parameters
    ----------
    desk : Desk
        Of its site.
    name : str
    """

    def __init__(self, desk: Desk, name: str) -> None:
        self.name = name
        self._desk = desk
        self._ask = Asking(desk, name).ask

    @classmethod
    def create(cls, name: str, *, site: str = "") -> Queue:
        """Make a queue.

        Raises
        ------
        QueueError
            The name cannot be a queue's, is taken, or the place cannot be written.

        Examples
        --------
        >>> q = Queue.create("extract")                                # doctest: +SKIP
        >>> ids = q.add_multiple(f"convert {n}.tif" for n in range(100))   # doctest: +SKIP
        >>> q.add("merge", requires=ids)                                   # doctest: +SKIP
        101
        """
        desk = desk_of(site)
        desk("create", name=name)
        return cls(desk, name)

    @classmethod
    def connect(cls, name: str, *, site: str = "") -> Queue:
        """Find a queue that was made before; raises `QueueError` when there is none."""
        desk = desk_of(site)
        desk("check", name=name)
        return cls(desk, name)

    @property
    def site(self) -> str:
        """Where it is."""
        return self._desk.site

    # -- adding --------------------------------------------------------------------------------------------------------

    def add(self, task: Any, *, requires: Any = (), after: Any = (), **more: Any) -> int:
        """Add one task, a command line or any value that JSON has; return its id. See `add_multiple`."""
        return self.add_multiple([task], requires=ids(requires), after=ids(after), **more)[0]

    def add_multiple(
        self,
        tasks: Iterable[Any],
        *,
        priority: int = 0,
        requires: Sequence[Any] = (),
        after: Sequence[Any] = (),
        retries: int = 0,
        retry_delay: str | float = 0,
        retry_on: str = "",
        unique: bool = False,
    ) -> Sequence[int]:
        """Add all of these tasks, or none; return their ids, in order.

        Parameters
        ----------
        tasks : iterable
            Command lines or values that JSON has; may be larger than the memory.
        priority : int
            Higher goes first; among equals, who came first.
        requires : sequence
            Ids of the tasks that all of these wait for, and which have to *succeed*; or such a list for each task.
        after : sequence
            The same for tasks that have to *finish*, well or not.
        retries : int
            How often a task that fails is tried again by itself.
        retry_delay : str or number
            How long after it has failed, ``30s``; each further time twice as long, an hour at most.
        retry_on : str
            Only if the error holds this regular expression. The error of a command ends with the last line that it wrote to stderr.
        unique : bool
            Not again what the queue has already, by its content: whatever has become of it, its id is returned.

        Raises
        ------
        TypeError
            A task is neither; nothing was added.
        """
        each = per_task(requires) or per_task(after)
        if each:
            lines, requires, after = lines_with_edges(tasks, requires, after), (), ()
        else:
            lines = plain_lines(tasks)
        asked: dict[str, Any] = {"requires": ids(requires), "after": ids(after)}
        asked |= {"policy": policy(retries, retry_delay, retry_on), "unique": bool(unique)}
        added: list[int] = self._ask("add", lines, priority=int(priority), edges=each, **asked)
        return added if unique else range(added[0], sum(added))

    def load(self, path: str | os.PathLike[str], **more: Any) -> Sequence[int]:
        """Add each line of a file as a command, all or none; empty ones and those that begin with # are left out.

        A file whose name ends with ``.yaml``, ``.yml`` or ``.json`` is a workflow of FireWorks, of ScriptTask and PyTask: each of
        its fireworks is a task, which needs neither `func` nor `script`, and waits for those that its links say.

        Everything else as in `add_multiple`, for a workflow `priority` and the retries.
        """
        try:
            if os.fspath(path).endswith(WORKFLOWS):
                return self._add_workflow(workflow(path), **more)
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return self.add_multiple(commands(file), **more)
        except OSError as exc:
            raise QueueError(f"cannot read {os.fspath(path)}: {exc.strerror}", remedy="Nothing was added.") from exc

    def _add_workflow(self, lines: list[str], *, priority: int = 0, unique: bool = False, **retries: Any) -> range:
        if unique:
            raise QueueError(
                "unique= and a workflow", remedy="Its tasks wait for each other, and are new, all of them."
            )
        first, count = self._ask("graph", lines, priority=int(priority), policy=policy(**retries))
        return range(first, first + count)

    # -- looking ---------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Name, user, state (Active or Paused), how many tasks there are in each state, and how fast they end.

        ``rate`` is tasks a second of late, ``ends_in`` the seconds until the last one has ended at that rate; None while nobody
        drains the queue, or nothing has ended yet.
        """
        found = self._ask("status")
        row, rate = _row(self.name, found), found.get("rate")
        left = sum(row["ntasks"][state] for state in ("Waiting", "Pending", "Running"))
        return row | {"rate": rate, "ends_in": left / rate if rate else None}

    def introspect(self) -> Introspection:
        """Say which parameter goes along with failure, where tasks are dicts: see `hpcnb.queue.introspection.introspect`.

        Examples
        --------
        >>> q.introspect()                                   # doctest: +SKIP
        31 of 400 tasks have failed
        Failed    Otherwise  Phi   Chance  Parameter
        31 of 40  0 of 360   0.87  1e-37   mesh.size > 100
        """
        kinds = ("Succeeded", "Failed")
        tasks = [[task for one in sample(self.tasks(kind)) if isinstance(task := one.task, dict)] for kind in kinds]
        if not all(tasks):
            what = f"queue {self.name!r} has {len(tasks[0])} tasks that are dicts and succeeded, {len(tasks[1])} that failed"
            raise QueueError(what, remedy="To tell them apart some of both are needed.")
        return introspect(*tasks)

    def tasks(self, state: str | None = None) -> Iterator[QueuedTask]:
        """The tasks, by id; those in one state. They are read as they are iterated over."""
        title = TaskState.of(state).title if state else None
        return self._pages(title)

    def _pages(self, state: str | None) -> Iterator[QueuedTask]:
        last = 0
        while page := self.page(last, state=state):
            yield from page
            last = page[-1].id

    def page(self, after: int = 0, most: int = PAGE, *, state: str | None = None) -> list[QueuedTask]:
        """At most so many tasks, by id, from the first one whose id is above `after`."""
        return [QueuedTask.of(row) for row in self._ask("tasks", after=after, most=most, state=state)]

    def task(self, id: int) -> dict[str, Any]:
        """One task with all its attempts that have ended (state, exit code, host, times), the one that runs, what it waits for, and was passed."""
        found = self._ask("task", id=id_of(id))
        row = QueuedTask.of(found.pop("row"))
        return {**row.to_json(), **found}

    def __len__(self) -> int:
        return sum(self.status()["ntasks"].values())

    def __str__(self) -> str:
        return queues_text([self.status()])

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"

    # -- changing --------------------------------------------------------------------------------------------------------

    def get(self, timeout: float = 0.0) -> Claim | None:
        """Take one task, to be carried out here; None when there is none to be had within `timeout` seconds."""
        worker = f"get-{secrets.token_hex(8)}"
        end = time.monotonic() + timeout
        pause = 0.02
        while True:
            if found := self._ask("get", worker=worker, host=socket.gethostname(), pid=os.getpid()):
                return Claim(self._ask, worker, *found)
            if time.monotonic() >= end:
                return None
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(pause * 1.5, 1.0)

    def do(self, func: Callable[[Any], Any] | None = None, *, script: str = "") -> None:
        """Carry out tasks here, until none is left: as command lines, or by a function or a template for their values.

        Several processes may do so at once. What the commands print is kept with their attempts.

        Parameters
        ----------
        func : callable, optional
            Called with each task; returns what JSON has, which is kept as the task's result.
        script : str
            A command line with the names of values, ``analyze -a {a}``; each value is quoted for the shell.
        """
        check_ways(func, script)
        if self._desk.root is None:
            what = f"queue {self.name!r} is at site {self._desk.site!r}, and cannot be drained here"
            raise QueueError(what, remedy="Use `launch`, or `do` there.")
        certify(self._desk, self.name)
        drain(Place.named(self.name, root=self._desk.root), func, script)

    def launch(
        self,
        count: int = 1,
        *,
        pack: bool = False,
        nodes: int | None = None,
        queued: int | None = None,
        core_hours: float | None = None,
        func: Callable[[Any], Any] | None = None,
        script: str = "",
        **wishes: Any,
    ) -> Launched:
        """Submit jobs that drain the queue, and need nobody from then on; return their ids, which are displayed with what was submitted.

        Whichever job runs owns the queue. A job that has come to the end of its walltime is followed by another one as long as work
        is left; what it could not finish is carried out again. Jobs end when nothing is left to do.

        Parameters
        ----------
        count : int
            How many jobs of one worker; or, with `pack`, how many workers in one job.
        pack : bool
        nodes : int
            Of that one job; with `core_hours`, at most.
        queued : int
            At most so many of the jobs wait in the batch system at a time: when one has begun, it submits the next one.
        core_hours : float
            Instead of a count: one job of so many cores times hours, on at most `nodes` and for at most `walltime`, with a worker for
            each core (``cores_per_worker=``). Of the shapes that it may have the one is taken that the batch system would start soonest.
        func, script
            As in `do`.
        **wishes
            What the batch system is asked for, as in `Cluster`: ``walltime partition account qos cores_per_worker options`` …

        Raises
        ------
        HPCError
            It was refused, and why.

        Examples
        --------
        >>> q.launch(50, walltime="2h")                      # doctest: +SKIP
        >>> q.launch(24, pack=True, script="analyze {file}")     # doctest: +SKIP
        >>> q.launch(core_hours=400, nodes=8, walltime="4h")     # doctest: +SKIP
        """
        check_ways(func, script)
        jobs, wishes = plan(count, pack=pack, nodes=nodes, queued=queued, core_hours=core_hours, wishes=wishes)
        work: dict[str, Any] = {"call": func, "script": script, "wishes": wishes}
        return launch(self._desk, self.name, jobs, queued=queued or 0, core_hours=core_hours or 0, **work)

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until no task is pending or running; return the status.

        Raises
        ------
        TimeoutError
            There still are some after so many seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        pause = 0.05
        while (tasks := (status := self.status())["ntasks"])["Pending"] or tasks["Running"]:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"queue {self.name!r} still has tasks after {timeout:g} s: {tasks}")
            time.sleep(pause)
            pause = min(pause * 1.3, 5.0)
        return status

    def log(self, task: Any, attempt: int | None = None) -> str:
        """What an attempt at a task has printed until now, to stdout and then to stderr; by default the last one, also if it runs."""
        return str(self.piece(task, attempt)["text"])

    def follow(self, task: Any, attempt: int | None = None) -> Iterator[str]:
        """What an attempt at a task prints, as it comes, until it has ended; by default the last one that was begun.

        Examples
        --------
        >>> for text in q.follow(17):                        # doctest: +SKIP
        ...     print(text, end="")
        """
        return follow(lambda number, read: self.piece(task, number, read), attempt)

    def piece(self, task: Any, attempt: int | None = None, read: Sequence[int] | None = None) -> dict[str, Any]:
        """What an attempt has printed, after so many bytes of stdout and of stderr; with its number and state, and all attempts."""
        return dict(self._desk("log", name=self.name, task=id_of(task), attempt=attempt, read=read))

    def set_state(self, tasks: Any, state: str) -> int:
        """Put tasks into a state by hand: Pending, Succeeded, Failed or Killed. Returns how many there were."""
        return int(self._ask("mark", state=TaskState.of(state).title, ids=ids(tasks)))

    def set_priority(self, tasks: Any, priority: int) -> int:
        """Change the priority of tasks that have not begun; returns how many there were."""
        return int(self._ask("prioritize", priority=int(priority), ids=ids(tasks)))

    def retry(self, tasks: Any = None) -> int:
        """Have failed tasks carried out again, all of them or these; returns how many."""
        return self._again(["Failed"], tasks)

    def revive(self, tasks: Any = None) -> int:
        """Have killed tasks carried out again, all of them or these; returns how many."""
        return self._again(["Killed"], tasks)

    def rerun(self, tasks: Any = None, *, force: bool = False) -> int:
        """Have all tasks that have ended carried out again, those too that succeeded; returns how many."""
        if not force:
            what = "the tasks that succeeded would be carried out again, too"
            raise QueueError(what, remedy="If that is meant: `rerun(force=True)`, `--force`; for what failed, `retry`.")
        return self._again(["Succeeded", "Failed", "Killed"], tasks)

    def _again(self, states: list[str], tasks: Any) -> int:
        return int(self._ask("again", states=states, ids=None if tasks is None else ids(tasks)))

    def recover(self) -> int:
        """Take back the tasks of workers that have died; returns how many. Always safe, and done without it in time."""
        return int(self._ask("recover"))

    def pause(self) -> None:
        """Give out no further tasks; those that run go on."""
        self._ask("pause", paused=True)

    def resume(self) -> None:
        """Give out tasks again."""
        self._ask("pause", paused=False)

    def delete(self) -> None:
        """Remove the queue with all its tasks and logs; refused while it is drained."""
        self._desk("delete", name=self.name)


def queues(*, site: str = "") -> list[Queue]:
    """The queues of a site, by name."""
    desk = desk_of(site)
    return [Queue(desk, name) for name in desk("names")]


def listing(*, site: str = "") -> list[dict[str, Any]]:
    """The status of each queue of a site, by one question."""
    return [_row(name, counts) for name, counts in desk_of(site)("listing")]


def _row(name: str, counts: dict[str, Any]) -> dict[str, Any]:
    state = "Paused" if counts["paused"] else "Active"
    return {"name": name, "user": getpass.getuser(), "state": state, "ntasks": counts["ntasks"]}
