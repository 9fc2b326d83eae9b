"""A program of tasks: what it has called, what that made of its data, and how it waits for it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcnb.pilot.scheduler.versions import Versions
from hpcnb.pilot.worker.batch import are_plain
from hpcnb.tasks.body import Argument, Body, leaves, shaped
from hpcnb.tasks.data import Datum, Ledger, Version, absolute, refreshed
from hpcnb.tasks.directions import Access, Direction, In
from hpcnb.tasks.failure import CANCEL_SUCCESSORS, FAIL, IGNORE, RETRY, Options, called
from hpcnb.tasks.graph import Graph, Node
from hpcnb.tasks.group import Group
from hpcnb.tasks.staging import Content, Place, collected, published
from hpcnb.tasks.where import Where

__all__ = ["Program"]


Implementation = tuple[Callable[..., Any], Options]
"""A function by which a task can be done, and how it is run."""


_Written = tuple[Datum, Access]
"""What a task writes, and how."""


class Program:
    """The tasks and data of a main program, or of a task that calls tasks itself."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._ledger = Ledger()
        self._lock = threading.RLock()
        self._groups: list[Group] = []
        self._nodes: dict[str, Node] = {}
        self._all = Group("", where, self._spared)
        self.graph = Graph()

    # -- calling -----------------------------------------------------------------------------------------------------

    def call(
        self,
        versions: Sequence[Implementation],
        passed: Sequence[tuple[str, Direction]],
        values: Iterable[Any],
    ) -> Any:
        """Submit a task; gives its future, or a tuple of them where it returns several values.

        Parameters
        ----------
        versions : sequence of (callable, Options)
            The best first; the last is the task itself, which says all but what its worker needs.
        passed : sequence of (str, Direction)
        values : iterable
        """
        _, options = versions[-1]
        with self._lock:
            sources: set[int] = set()
            written: list[_Written] = []
            given = [
                self._argument(name, direction, value, sources, written)
                for (name, direction), value in zip(passed, values, strict=True)
            ]
            task = self._submit(versions, [argument for argument, _ in given], [value for _, value in given])
            spares = options.on_failure == CANCEL_SUCCESSORS
            name = versions[-1][0].__name__
            node = self._nodes[task.key] = self.graph.add(name, task.key, sources, spares=spares)
            for group in [self._all, *self._groups]:
                group.members[task.key] = task
            returned = self._outputs(task, node, options.returns, written)
        self._where.on_end(task, functools.partial(self._ended, node, options))
        return returned

    def _submit(self, versions: Sequence[Implementation], arguments: list[Argument], values: list[Any]) -> Any:
        fn, options = versions[-1]
        needed = [one.constraints.needed(getattr(inspect.unwrap(of), "__globals__", {})) for of, one in versions]
        known = self._where.check(needed)
        calls = []
        for (of, one), needs in zip(versions, needed, strict=True):
            body = Body(of, arguments, returns=options.returns, waits=needs.get("cores") == 0)
            calls.append(called(body, one, needs))
        several = Versions(calls, needed) if len(calls) > 1 else None
        task = self._where.submit(
            several or calls[0],
            [values],
            key=f"{fn.__name__}-{uuid.uuid4()}",
            retries=0 if options.on_failure == IGNORE else options.again,
            same_first=options.on_failure == RETRY,
            priority=options.priority,
            counts=True,
            resources=(several.needs[-1] if several else needed[0]) or None,
        )
        if not known:
            self._where.watch(task, needed)
        return task

    def _outputs(self, task: Any, node: Node, returns: int, written: Sequence[_Written]) -> Any:
        parts = [task]
        if (number := returns + len(written)) > 1:
            parts = [self._where.submit(operator.itemgetter(i), [task], key=f"{task.key}-{i}") for i in range(number)]
        for (datum, access), part in zip(written, parts[returns:], strict=False):
            datum.written(access, Version(future=part, writers=(node.number,)))
        futures = parts[:returns] or [self._where.nothing(task)]
        for future in futures:
            self._ledger.object(future).origin = (node.number,)
        return futures[0] if returns < 2 else tuple(futures)

    def _argument(
        self, name: str, direction: Direction, value: Any, sources: set[int], written: list[_Written]
    ) -> tuple[Argument, Any]:
        if direction.is_path:
            paths = [absolute(leaf) for leaf in leaves(value, direction.depth)]
            places = shaped(value, direction.depth, (Place(path=path) for path in paths))
            found: Iterable[Any] = [self._content(path, direction, sources, written) for path in paths]
        else:
            places = None
            found = [self._object(leaf, direction, sources, written) for leaf in leaves(value, direction.depth)]
        argument = Argument(name=name, direction=direction, places=places)
        return argument, shaped(value, direction.depth, iter(found))

    def _object(self, value: Any, direction: Direction, sources: set[int], written: list[_Written]) -> Any:
        if not direction.writes:
            seen = self._resolved(value, sources)
            if direction.access is Access.IN_DELETE and (datum := self._ledger.find(value)):
                self._ledger.forget(datum)
            return seen
        datum = self._ledger.object(value)
        written.append((datum, direction.access))
        return self._seen(datum, direction, sources) or self._resolved_within(value, sources)

    def _content(self, path: str, direction: Direction, sources: set[int], written: list[_Written]) -> Any:
        datum = self._ledger.path(path)
        if direction.writes:
            written.append((datum, direction.access))
        future = self._seen(datum, direction, sources)
        if future is None and direction.reads and not direction.is_shared and Path(path).exists():
            return Content.read(path, direction.kind)
        return future

    def _seen(self, datum: Datum, direction: Direction, sources: set[int]) -> Any:
        """The future of the version that a task finds; None: it is what the main program has."""
        version = datum.seen_by(direction.access, self._moved)
        if direction.reads:
            sources.update(version.writers if version else datum.origin)
        return version.future if version and direction.reads else None

    def _moved(self, datum: Datum, beside: Sequence[Version]) -> Version:
        """The version before tasks that write beside each other, or after them.

        What several have made of an object is what the one that was called last has made of it. A file they all have in one place.
        """
        versions = beside or [version for version in (datum.version,) if version is not None]
        is_file = isinstance(datum.key, str)
        if len(versions) == 1 and not is_file:
            return versions[0]
        call: Any = operator.itemgetter(-1)
        if is_file:
            call = functools.partial(collected if beside else published, datum.key)
        future = self._where.submit(call, [[version.future for version in versions]], key=f"version-{uuid.uuid4()}")
        return Version(future=future, writers=tuple(writer for version in versions for writer in version.writers))

    def _resolved(self, value: Any, sources: set[int]) -> Any:
        """A value as it is sent: futures of their current versions in the place of what tasks return or have written."""
        datum = self._ledger.find(value)
        future = self._seen(datum, In, sources) if datum else None
        return self._resolved_within(value, sources) if future is None else future

    def _resolved_within(self, value: Any, sources: set[int]) -> Any:
        kind = type(value)
        if kind in (list, tuple, set):
            if are_plain(value):
                return value
            return kind(self._resolved(element, sources) for element in value)
        if kind is dict:
            return {key: self._resolved(element, sources) for key, element in value.items()}
        return self._where.argument(value)

    def _ended(self, node: Node, options: Options, status: str) -> None:
        """Note how a task ended; what has not failed nobody has to wait for."""
        self.graph.ended(node, status)
        if status != "error":
            self._all.members.pop(node.key, None)
            self._nodes.pop(node.key, None)
        elif options.on_failure == FAIL:
            self._all.cancel()

    def _spared(self, key: str) -> bool:
        node = self._nodes.pop(key, None)
        return node is not None and self.graph.spared(node)

    @contextlib.contextmanager
    def group(self, name: str, *, wait: bool) -> Iterator[Group]:
        """See `hpcnb.group`."""
        group = Group(name, self._where, self._spared)
        self._groups.append(group)
        try:
            with self._where.shown_as(name):
                yield group
        except BaseException:
            group.cancel()
            raise
        finally:
            self._groups.remove(group)
        if wait:
            self.barrier(group)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait_on(self, value: Any) -> Any:
        """The value as the tasks called so far leave it."""
        with self._lock:
            found = list(self._futures(value))
        values = iter(self._where.gather(found))
        return self._replaced(value, values)

    def _futures(self, value: Any) -> Iterator[Any]:
        datum = self._ledger.find(value)
        version = datum.seen_by(Access.IN, self._moved) if datum else None
        if version is not None:
            yield version.future
        elif self._where.is_future(value):
            yield value
        elif type(value) in (list, tuple, set) and not are_plain(value):
            for element in value:
                yield from self._futures(element)
        elif type(value) is dict:
            for element in value.values():
                yield from self._futures(element)

    def _replaced(self, value: Any, made: Iterator[Any]) -> Any:
        datum = self._ledger.find(value)
        if self._where.is_future(value):
            return next(made)
        if datum is not None and datum.version is not None:
            current = refreshed(value, next(made))
            if current is value:
                self._ledger.forget(datum)
            return current
        if type(value) in (list, tuple, set):
            if are_plain(value):
                return type(value)(value)
            return type(value)(self._replaced(element, made) for element in value)
        if type(value) is dict:
            return {key: self._replaced(element, made) for key, element in value.items()}
        return value

    def wait_on_file(self, path: str | os.PathLike[str]) -> None:
        """Have a file or directory at its path as the tasks called so far leave it."""
        with self._lock:
            datum = self._ledger.path(path)
            version = datum.seen_by(Access.IN, self._moved)
        if version is not None:
            (content,) = self._where.gather([version.future])
            content.write(datum.key)
        self._ledger.forget(datum)

    def barrier(self, group: Group | None = None) -> None:
        """Wait for the tasks of a group, or for all."""
        if group is not None:
            for key in group.members:  # its errors are its own
                self._all.members.pop(key, None)
        (group or self._all).wait()

    def delete(self, value: Any) -> bool:
        """Forget the versions of an object or a path; whether there were any."""
        with self._lock:
            datum = self._ledger.path(value) if isinstance(value, os.PathLike) else self._ledger.find(value)
            if datum is not None:
                self._ledger.forget(datum)
        return datum is not None and datum.changed
