"""A worker's threads, one of which can be given up while it is stuck, without the worker losing a core."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from distributed import Reschedule, threadpoolexecutor
from distributed.threadpoolexecutor import ThreadPoolExecutor

__all__ = ["ForsakingThreadPoolExecutor"]


class ForsakingThreadPoolExecutor(ThreadPoolExecutor):
    """Dask's own pool, with one more verb: `forsake`.

    What a thread does in C cannot be ended. But what waits for it can be told that it is over, and another thread can take its
    place, as Dask itself does it for a task that secedes.
    """

    def __init__(self, size: int, thread_name_prefix: str) -> None:
        super().__init__(size, thread_name_prefix=thread_name_prefix)  # type: ignore[no-untyped-call]
        self._running: dict[int, Future[Any]] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        """Run ``fn(*args, **kwargs)`` in a thread."""
        outer: Future[Any] = Future()
        super().submit(self._run, outer, fn, args, kwargs)  # type: ignore[no-untyped-call]
        return outer

    def forsake(self, thread: int, why: Exception) -> None:
        """End what a thread is at with an error, and let another thread take its place; when it comes back, it ends.

        Parameters
        ----------
        thread : int
            Its identifier.
        why : Exception
        """
        outer = self._running.pop(thread, None)
        if outer is None:  # it has come back in this moment
            return
        with threadpoolexecutor.threads_lock:
            self._threads -= {known for known in self._threads if known.ident == thread}
            self._adjust_thread_count()  # type: ignore[no-untyped-call]
        if isinstance(
            why, Reschedule
        ):  # in the form in which a task's thread says so: as an error it would be the task's
            outer.set_result({"op": "task-erred", "thread": thread, "actual_exception": why})
        else:
            outer.set_exception(why)

    def _run(self, outer: Future[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        if not outer.set_running_or_notify_cancel():
            return
        me = threading.get_ident()
        self._running[me] = outer
        error = result = None
        try:
            result = fn(*args, **kwargs)
        except BaseException as raised:
            error = raised
        # Whoever takes it out, this thread or who gives it up, says how it ended.
        if self._running.pop(me, None) is None:
            threadpoolexecutor.thread_state.proceed = False
        elif error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(result)
