"""A call that runs on a worker: it can be stopped, has a limit of time, and its errors are precise."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, TypeVar

import dask
import psutil
from cloudpickle import cloudpickle
from dask.sizeof import sizeof
from dask.utils import funcname
from distributed import Reschedule, Worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.utils import thread_state  # type: ignore[attr-defined]
from distributed.worker import get_worker

from hpcnb.errors import TaskFailed, TaskLost, TaskTimeout
from hpcnb.pilot.scheduler.suspects import SUSPECT
from hpcnb.pilot.worker.blame import check
from hpcnb.pilot.worker.isolation import Isolation, Verdict
from hpcnb.pilot.worker.packed import unpacked
from hpcnb.pilot.worker.pool import ForsakingThreadPoolExecutor
from hpcnb.pilot.worker.raised import is_ours, portable
from hpcnb.pilot.worker.running import Interrupted, Job, Running
from hpcnb.pilot.worker.standin import StandIn
from hpcnb.pilot.worker.turns import Turns, dropped, hear_as_worker

T = TypeVar("T")

__all__ = ["POISON", "Call", "Outcome", "Stopper", "isolate_from_here", "running", "stop"]

POISON = 3
"""So often may a task's process be killed by nobody knows whom."""
FEW = 5
"""Entries of a traceback that say where a call is whose time is over."""
SMALL = frozenset({bool, complex, float, int, type(None)})
"""Types whose values need not be weighed."""
SHARE = 0.95
"""Of a worker's memory, which it and a call's own process may have together."""

MORE = "Give workers more memory: memory_per_worker=, or fewer of them on a node."

_running = Running()
_turns: dict[Any, Turns] = {}
_isolation: Isolation | None = None
_largest = float("inf")
"""Bytes of the largest value that this worker can hold beside itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a call ended: with a value, or with an error.

    Parameters
    ----------
    value : object
    error : BaseException, optional
        One that can travel.
    """

    value: Any = None
    error: BaseException | None = None


NOBODY_S = Outcome(error=CancelledError())
"""What comes of a call that was cancelled."""


class Call:
    """A function as it is sent to a worker: ``client.submit(Call(fn, …), *args, **kwargs)``.

    The function is pickled once, here, and unpickled where it runs: the scheduler carries bytes.

    Parameters
    ----------
    fn : callable
        A coroutine function runs on the worker's event loop, as with Dask.
    timeout : float, optional
        Seconds after which it is stopped, with `TaskTimeout`.
    isolate : bool
        Run it in a process of its own.
    """

    __slots__ = ("__name__", "isolate", "payload", "timeout")
    isolates = True  # what says so to the scheduler is run by itself after its worker has died

    def __init__(self, fn: Callable[..., Any], *, timeout: float | None = None, isolate: bool = False) -> None:
        self.__name__: str = funcname(fn)
        self.payload: bytes = cloudpickle.dumps(fn, protocol=5)
        self.timeout, self.isolate = timeout, isolate

    def __repr__(self) -> str:
        return self.__name__

    def function(self) -> Callable[..., Any]:
        """The function, made anew: what one call does to it, another one does not see."""
        made: Callable[..., Any] = pickle.loads(self.payload)  # noqa: S301 - from the user's own client
        return made

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run it as a task of Dask's: gives its value, or raises."""
        outcome = self.outcome(args, kwargs)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def outcome(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, member: Any = None) -> Outcome:
        """Run it; raises nothing but `distributed.Reschedule`, for a task that was cancelled while it ran.

        Parameters
        ----------
        args, kwargs
        member : object, optional
            For one of several calls of a batch, which is one task of Dask's: by what `stop` knows it.
        """
        task = _Task(self, getattr(thread_state, "key", None), member)
        name = task.key if member is None else (task.key, member)
        run = functools.partial(task.run, args=args, kwargs=kwargs or {})
        try:
            return Outcome(value=_running.run(name, run, self.timeout, task.late))
        except Reschedule:
            raise
        except BaseException as error:
            return Outcome(error=task.portable(error))

    def together(self, work: Callable[[Callable[[int, Sequence[Any]], Outcome]], T]) -> T:
        """Run several calls as one task of Dask's, which is stopped as a whole.

        Parameters
        ----------
        work : callable
            Gets a function that runs one of them, by its number and its arguments, and raises nothing of the user's.
        """
        task = _Task(self, getattr(thread_state, "key", None))
        apart = self.isolate or _is_suspect(task.key)  # one of them may have been to blame: each by itself
        turns = _turns[task.key] = Turns()
        turns.drop(dropped(get_worker().state.tasks.get(task.key)))  # not before: what comes meanwhile is told to these
        try:
            if apart:
                return work(
                    lambda number, args: NOBODY_S if turns.is_unwanted(number) else self.outcome(args, member=number)
                )
            function = self.function()

            def one(job: Job, number: int, args: Sequence[Any]) -> Outcome:
                _running.turn(job, number)
                return task.outcome(job, function, args)

            def members(job: Job) -> T:
                job.key = task.key
                return work(
                    lambda number, args: turns.run(number, job, lambda: one(job, number, args), lambda: NOBODY_S)
                )

            result: T = _running.run(task.key, members)
            return result
        finally:
            if _turns.get(task.key) is turns:
                del _turns[task.key]


class _Task:
    """A call in the task of Dask's by which it runs."""

    def __init__(self, call: Call, key: Any, member: Any = None) -> None:
        self._call, self.key, self._name = call, key, call.__name__
        self._member = member
        job = os.environ.get("SLURM_JOB_ID")
        self._where = ", ".join([f"task {key}", socket.gethostname(), *([f"job {job}"] if job else [])])

    def run(self, job: Job, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run it here, or in a process of its own; the value, or what it raises."""
        job.key, job.member = self.key, self._member
        suspect = _is_suspect(self.key)
        if self._call.isolate or suspect:
            result = self._apart(job, args, kwargs, self._begin(job) if suspect else [])
        else:
            result = self._here(job, self._call.function(), args, kwargs)
        self._weigh(result)
        return result

    def outcome(self, job: Job, function: Callable[..., Any], args: Sequence[Any]) -> Outcome:
        """Run it here, as one of several that are stopped together."""
        try:
            result = self._here(job, function, args, {})
            self._weigh(result)
            return Outcome(value=result)
        except (Interrupted, Reschedule):
            raise
        except BaseException as error:
            return Outcome(error=self.portable(error))

    def _here(self, job: Job, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        result = function(*unpacked(args), **unpacked(kwargs))
        if inspect.iscoroutine(result):
            result = _wait(job, result)
        check(result, f"what {self._name} returned", where=self._where)
        return result

    def _weigh(self, result: Any) -> None:
        """Refuse what would break the worker when it is sent: memory that nothing was written to does not count before."""
        if type(result) not in SMALL and (size := sizeof(result)) > _largest:
            raise TaskFailed(
                f"{self._name} returned {_mib(size)}, more than its worker can hold; its limit is {_mib(_memory()[0])}",
                where=self._where,
                remedy=MORE,
            )

    def within(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], worker: StandIn, ask: Callable[[str], None]
    ) -> Outcome:
        """Run it in this process, which is its own."""
        worker.install(ask)
        try:
            result = self._call.function()(*unpacked(args), **unpacked(kwargs))
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            check(result, f"what {self._name} returned", where=self._where)
            return Outcome(value=result)
        except BaseException as error:
            return Outcome(error=self.portable(error).with_traceback(None))

    def _begin(self, job: Job) -> list[str]:
        """Tell the scheduler that a suspect is about to run; of the workers that have died while it ran on them."""
        worker = get_worker()
        asked: dict[str, Any] = _wait(
            job, worker.scheduler.hpcnb_begin(key=self.key, member=self._member, worker=worker.address)
        )
        if asked["poison"]:
            raise self._poison("the workers that run it die of it, from a process of its own, too", asked["history"])
        return list(asked["history"])

    def _poison(self, why: str, history: list[str]) -> TaskLost:
        return TaskLost(
            f"{self._name} is poison: {why}",
            where=self._where,
            evidence="\n".join(history),
            remedy="Look at what it does to its process. It is not tried again.",
        )

    def _apart(self, job: Job, args: Sequence[Any], kwargs: Mapping[str, Any], history: list[str]) -> Any:
        """Run it in a process of its own, again if that is killed by nobody knows whom."""
        if _isolation is None:
            raise RuntimeError("this process has not called isolate_from_here()")
        killed = 0
        while killed < POISON:
            work = functools.partial(self.within, args, kwargs, StandIn.of_worker(self.key))
            out = 1 if _running.watch is None else _running.watch.tape_of_children()
            ended = _isolation.run(job, work, _room, out)
            if isinstance(ended, Outcome):
                if ended.error is not None:
                    raise ended.error
                return ended.value
            if job.why is not None:
                raise job.why
            if ended.over or ended.code != -signal.SIGKILL:
                raise self._crashed(ended)
            history, killed = [*history, f"its process on {socket.gethostname()} {ended}"], killed + 1
        raise self._poison("whatever runs it is killed", history)

    def _crashed(self, ended: Verdict) -> TaskFailed:
        if not ended.over:
            return TaskFailed(f"{self._name} {ended}", where=self._where, evidence=ended.last_words.strip())
        limit, own = _memory()
        what = f"{self._name} needed more memory than its worker has: {_mib(ended.peak)} when it was ended; "
        what += f"the limit is {_mib(limit)}, of which the worker itself uses {_mib(own)}"
        return TaskFailed(what, where=self._where, remedy=MORE)

    def late(self, job: Job) -> TaskTimeout:
        """The error of a call that has used up its time, with what it is at."""
        return TaskTimeout(
            f"{self._name} took longer than its {self._call.timeout:g} s",
            where=self._where,
            evidence="" if self._call.isolate else _at(job.thread),
            remedy="Give it more with timeout=, or look at what it was waiting for.",
        )

    def portable(self, error: BaseException) -> BaseException:
        """Return the error as it can leave the worker."""
        return portable(error, name=self._name, where=self._where)


def _at(thread: int) -> str:
    """Where in the user's code a thread is."""
    frames = []
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - there is no other way
    while frame is not None and not is_ours(frame):
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return "".join(traceback.StackSummary.extract(reversed(frames[:FEW])).format()).rstrip()


def _wait(job: Job, coroutine: Any) -> Any:
    """Run a coroutine on the worker's event loop, where Dask runs them, too."""
    loop: Any = get_worker().loop
    if _running.watch is not None:
        _running.watch.carry()
    future = asyncio.run_coroutine_threadsafe(coroutine, loop.asyncio_loop)
    job.stop = future.cancel
    return future.result()


def _is_suspect(key: Any) -> bool:
    """Whether a worker has died while a task ran on it."""
    try:
        task = get_worker().state.tasks[key]
    except (ValueError, KeyError):
        return False
    if task.state == "cancelled":  # before it was known here, where `stop` would have found it
        raise Reschedule
    return SUSPECT in (task.annotations or {})


def _memory() -> tuple[float, float]:
    """The memory that this worker may use, and what it uses."""
    return get_worker().memory_manager.memory_limit or float("inf"), psutil.Process().memory_info().rss


def _room() -> float:
    limit, own = _memory()
    return SHARE * limit - own


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def isolate_from_here() -> None:
    """Prepare for calls that run in processes of their own; before this process has threads."""
    global _isolation
    _isolation = Isolation()


def running() -> Running:
    """What runs in this process."""
    return _running


def stop(name: Any, why: Exception) -> None:
    """Stop a call in this process, if it runs.

    Parameters
    ----------
    name : object
        The task's key, or ``(key, member)`` for a call of a batch.
    why : Exception
        With what it ends.
    """
    _running.stop(name, why)


class Stopper(WorkerPlugin):
    """Stops a call when Dask forgets it while it runs, and gives its core to the next one.

    Dask itself lets a cancelled task run to its end.
    """

    name = "hpcnb-stopper"

    def setup(self, worker: Worker) -> None:
        """Dask calls this before the worker runs anything."""
        global _running, _largest
        self._worked = dask.config.get("hpcnb.worked", None)
        pool = ForsakingThreadPoolExecutor(worker.state.nthreads, "Dask-Default-Threads")
        worker.executors["default"].shutdown(wait=False)
        worker.executors["default"] = pool
        _running = Running(pool.forsake)
        hear_as_worker(worker, _turns.get, lambda: _running)
        _largest = SHARE * (worker.memory_manager.memory_limit or float("inf")) - psutil.Process().memory_info().rss

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        if self._worked is not None:  # the node's supervisor takes a worker that has work for one that can work
            self._worked[0], self._worked = 1, None
        if finish == "released" and start in ("executing", "long-running"):
            # Should it be wanted again by then, it runs again.
            stop(key, Reschedule())
