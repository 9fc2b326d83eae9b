"""Where the tasks of a program go: to the cluster in use, or, from the body of a task, to the one that runs it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import dask
import distributed
from dask.utils import funcname

from hpcnb.future.constraints import refusal
from hpcnb.pilot.scheduler.elsewhere import SAME_FIRST

__all__ = ["Inside", "Main", "Where"]


class Where(Protocol):
    """What a program needs of a cluster."""

    def submit(self, fn: Callable[..., Any], args: Sequence[Any], **options: Any) -> Any:
        """Run a call, which is one of the user's where it ``counts``; gives a future."""

    def shown_as(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Have what is submitted within shown together."""

    def check(self, versions: Sequence[Mapping[str, float]]) -> bool:
        """Raise, if no worker can ever give what any version of a task needs; False: that is not known yet."""

    def watch(self, future: Any, versions: Sequence[Mapping[str, float]]) -> None:
        """Have a future fail as soon as it is known that no worker can run it."""

    def is_future(self, value: Any) -> bool:
        """Whether a value is one that was given."""

    def argument(self, value: Any) -> Any:
        """What is sent of a value: another future, where the one that was given is not that of its key's value."""

    def nothing(self, future: Any) -> Any:
        """A future that ends as another one does, but is None."""

    def on_end(self, future: Any, callback: Callable[[str], None]) -> None:
        """Have a quick function called with how it ended: ``finished``, ``error`` or ``cancelled``."""

    def ended(self, futures: Sequence[Any]) -> Iterator[tuple[Any, str]]:
        """Futures in the order in which they end, and how they did."""

    def gather(self, futures: Sequence[Any]) -> list[Any]:
        """The values; the first error is raised."""

    def cancel(self, futures: Sequence[Any]) -> None:
        """Cancel those that have not ended."""


class Main:
    """The cluster in use, for a program in a kernel."""

    def submit(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any],
        *,
        same_first: bool = False,
        counts: bool = False,
        **options: Any,
    ) -> Any:
        from hpcnb.choice import current
        from hpcnb.future.batches import send
        from hpcnb.future.work import uncounted

        with _marked(same_first=same_first), contextlib.nullcontext() if counts else uncounted():
            return send(current().early_client, fn, args, {}, **options)

    def shown_as(self, name: str) -> contextlib.AbstractContextManager[None]:
        from hpcnb.future.work import together

        return together(name)

    def check(self, versions: Sequence[Mapping[str, float]]) -> bool:
        from hpcnb.choice import current
        from hpcnb.future.offers import check

        return check(current(), versions)

    def watch(self, future: Any, versions: Sequence[Mapping[str, float]]) -> None:
        from hpcnb.choice import current
        from hpcnb.future.offers import watch

        watch(current(), future, versions)

    def is_future(self, value: Any) -> bool:
        from hpcnb.future.future import Future

        return isinstance(value, Future)

    def argument(self, value: Any) -> Any:
        from hpcnb.future.future import Future
        from hpcnb.tasks.ended import Ended

        return self.submit(nothing, [Future(value.batch)]) if isinstance(value, Ended) else value

    def nothing(self, future: Any) -> Any:
        from hpcnb.tasks.ended import Ended

        return Ended(future.batch)

    def on_end(self, future: Any, callback: Callable[[str], None]) -> None:
        def hear(batch: Any) -> None:
            if (status := _status(future)) != "pending":
                batch.unlisten(hear)
                callback(status)

        future.batch.listen(hear)
        hear(future.batch)

    def ended(self, futures: Sequence[Any]) -> Iterator[tuple[Any, str]]:
        from hpcnb.future.verbs import as_completed

        for future in as_completed(futures):
            yield future, _status(future)

    def gather(self, futures: Sequence[Any]) -> list[Any]:
        from hpcnb.future.verbs import gather

        return gather(futures)

    def cancel(self, futures: Sequence[Any]) -> None:
        for future in futures:
            future.cancel()


def _status(future: Any) -> str:
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    return "finished" if future.exception() is None else "error"


class Inside:
    """The cluster that runs a task, for the task's body."""

    def __init__(self) -> None:
        self._client: Any = distributed.get_client()
        self._arguments: dict[Any, Sequence[Any]] = {}

    def submit(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any],
        *,
        key: str | None = None,
        same_first: bool = False,
        counts: bool = False,
        **options: Any,
    ) -> Any:
        with _marked(same_first=same_first):
            future = self._client.submit(fn, *args, key=key or f"{funcname(fn)}-{uuid.uuid4()}", **options)
        # Until it ends: the scheduler may hear that an argument is released before it has read what needs it.
        self._arguments[future.key] = args
        future.add_done_callback(lambda done: self._arguments.pop(done.key, None))
        return future

    def shown_as(self, name: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def check(self, versions: Sequence[Mapping[str, float]]) -> bool:
        from hpcnb.future.offers import offers_of

        if any(versions) and (error := refusal(versions, offers_of(self._client), "this cluster")) is not None:
            raise error
        return True

    def watch(self, future: Any, versions: Sequence[Mapping[str, float]]) -> None:
        """Its cluster has what it has."""

    def is_future(self, value: Any) -> bool:
        return isinstance(value, distributed.Future)

    def argument(self, value: Any) -> Any:
        return value

    def nothing(self, future: Any) -> Any:
        return self.submit(nothing, [future])

    def on_end(self, future: Any, callback: Callable[[str], None]) -> None:
        future.add_done_callback(lambda done: callback(done.status))

    def ended(self, futures: Sequence[Any]) -> Iterator[tuple[Any, str]]:
        if futures:
            with _seceded():
                for future in distributed.as_completed(futures, loop=self._client.loop):
                    yield future, future.status

    def gather(self, futures: Sequence[Any]) -> list[Any]:
        if not futures:
            return []
        with _seceded():
            values: list[Any] = self._client.gather(list(futures))
        return values

    def cancel(self, futures: Sequence[Any]) -> None:
        self._client.cancel(list(futures))


def _marked(*, same_first: bool) -> contextlib.AbstractContextManager[Any]:
    marked: Any = dask
    return marked.annotate(**{SAME_FIRST: True}) if same_first else contextlib.nullcontext()


@contextlib.contextmanager
def _seceded() -> Iterator[None]:
    """While a task waits for others it leaves its core to them."""
    distributed.secede()
    try:
        yield
    finally:
        distributed.rejoin()


def nothing(written: Any) -> None:
    """The value of a task that returns none."""
