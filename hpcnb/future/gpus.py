"""Each GPU of a worker for one task at a time: the task's process sees those that it was given, and no other."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hpcnb import serializing

__all__ = ["Pinned"]

VARIABLE = "CUDA_VISIBLE_DEVICES"


class Free:
    """The GPUs of this process that nobody has."""

    def __init__(self) -> None:
        self._names = [name for name in os.environ.get(VARIABLE, "").split(",") if name]
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def granted(self, number: int) -> Iterator[list[str]]:
        """Have so many of them. The scheduler sends no more tasks than there are GPUs for, but one may not have quite ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._names) >= number)
            mine, self._names = self._names[:number], self._names[number:]
        try:
            yield mine
        finally:
            with self._changed:
                self._names += mine
                self._changed.notify_all()


_free: Free | None = None
_lock = threading.Lock()


def free() -> Free:
    """Those of this worker."""
    global _free
    with _lock:
        if _free is None:
            _free = Free()
        return _free


class Pinned:
    """A call in a process of its own, which sees the GPUs that it was given: a library looks once in its process's life."""

    isolates = True

    def __init__(self, fn: Callable[..., Any], gpus: int, timeout: float | None = None) -> None:
        self._call = serializing.call(_Told(fn), timeout=timeout, isolate=True)
        self._gpus = gpus
        self.__name__ = self._call.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with free().granted(self._gpus) as names:
            return self._call(",".join(names), *args, **kwargs)


class _Told:
    """A function that is told first which GPUs it has."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def __call__(self, names: str, *args: Any, **kwargs: Any) -> Any:
        os.environ[VARIABLE] = names
        return self._fn(*args, **kwargs)
