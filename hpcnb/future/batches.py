"""How calls are sent: one by one, or, where they are short, many as one task of Dask's."""

from __future__ import annotations

import time
import uuid
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dask.utils import funcname
from distributed import Future as DaskFuture

from hpcnb import serializing
from hpcnb.future.batch import Batch
from hpcnb.future.future import Future
from hpcnb.pilot.worker.batch import Calls, Filled, Outcomes, Place, are_plain, kept
from hpcnb.pilot.worker.call import Call

if TYPE_CHECKING:
    from hpcnb.kept import NotebookClient

__all__ = ["UNKNOWN", "Pace", "Sent", "keep", "pace_of", "send", "send_all", "sent", "size_for"]

LONG = 0.05
"""Seconds of a call beyond which it travels alone."""
BATCH = 0.15
"""Seconds that a batch of short calls takes."""
PER_CORE = 4
"""Batches for each core, at least, so that none is without work while others have too much."""
UNKNOWN = 1000
"""Batches of calls of which nothing is known: long ones should not wait for each other, and short ones not be a task each."""
MOST_KEYS = 10_000
"""Tasks of Dask's by which a map is sent, at most: a million would be a scheduler's memory."""
MOST_CALLS = 10_000
"""Calls of a batch, at most: their outcomes come in one piece."""
MOST_BYTES = 8 << 20
"""Of arguments, or of results, that travel in one piece."""
PROBES = 4
"""Calls that are sent ahead to find out how long such a call takes."""
PATIENCE = 0.1
"""Seconds that they may take: who has not come back by then is long, or what it imports is."""
TOGETHER = 1000
"""Tasks of Dask's that are sent as one graph."""


class Sent(NamedTuple):
    """A task as it is sent: the key that stands for it, and the call that it is, with Dask's futures only."""

    batch: Batch
    fn: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


@dataclass(slots=True)
class Pace:
    """What is known of a function: the mean time of its calls, and the size of what they return."""

    seconds: float = -1.0
    nbytes: float = 0.0

    def learn(self, outcomes: Outcomes) -> None:
        """Take the mean of what is known and of what has come."""
        number = len(outcomes.values)
        nbytes = sum(map(len, outcomes.values)) / number
        known = self.seconds >= 0
        self.seconds = (self.seconds + outcomes.seconds) / 2 if known else outcomes.seconds
        self.nbytes = (self.nbytes + nbytes) / 2 if known else nbytes


_paces: weakref.WeakKeyDictionary[Callable[..., Any], Pace] = weakref.WeakKeyDictionary()


def pace_of(fn: Callable[..., Any]) -> Pace:
    """What is known of a function; of one that cannot be remembered, nothing."""
    try:
        return _paces.setdefault(fn, Pace())
    except TypeError:
        return Pace()


def size_for(calls: int, *, cores: int, seconds: float, nbytes: float) -> int:
    """How many calls are sent as one task.

    Parameters
    ----------
    calls : int
        All of them.
    cores : int
    seconds : float
        That one takes; negative: nobody knows.
    nbytes : float
        Of its arguments, or of its result, whichever is larger.
    """
    if seconds < 0:
        wanted = calls / max(UNKNOWN, PER_CORE * cores)
    elif seconds >= LONG:
        wanted = 1
    else:
        wanted = min(BATCH / max(seconds, 1e-9), calls / (PER_CORE * max(1, cores)))
    wanted = max(wanted, calls / MOST_KEYS)
    return max(1, int(min(wanted, MOST_CALLS, MOST_BYTES / max(nbytes, 1))))


class Arguments:
    """Arguments with what the cluster knows in the place of our futures: Dask's, or a place in a batch."""

    def __init__(self) -> None:
        self.batches: dict[Batch, int] = {}
        self.alone = False  # Dask fails a task with what it depends on: a batch may depend on batches only

    def take(self, value: Any) -> Any:
        """The same value without futures of ours."""
        kind = type(value)
        if kind is Future:
            return self._future(value)
        if kind in (list, tuple, set):
            if are_plain(value):
                return value
            return self._kept(value, [self.take(one) for one in value], kind)
        if kind is dict:
            found = [self.take(one) for one in value.values()]
            return self._kept(value, found, lambda found: dict(zip(value, found, strict=True)))
        return value

    @staticmethod
    def _kept(value: Any, found: list[Any], made: Callable[[list[Any]], Any]) -> Any:
        old = value.values() if type(value) is dict else value
        changed = any(new is not one for new, one in zip(found, old, strict=True))
        return made(found) if changed else value

    def _future(self, future: Future) -> Any:
        if future.index is None:
            self.alone = True
            return future.batch.dask
        return Place(self.batches.setdefault(future.batch, len(self.batches)), future.index)


def send(
    client: NotebookClient,
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    key: str | None = None,
    tag: str = "",
    timeout: float | None = None,
    isolate: bool = False,
    **options: Any,
) -> Future:
    """Have a client run one call.

    Parameters
    ----------
    client : NotebookClient
    fn : callable
        Or a `Call` already, or what is around one.
    args, kwargs
        Its arguments, futures among them.
    key, tag : str, optional
        As in `submit`.
    timeout, isolate
        As in `hpcnb.pilot.worker.call.Call`.
    **options
        What the scheduler is told beside the call: see `NotebookClient.send`.
    """
    _check(fn)
    # A function is run each time it is submitted, as with any executor; Dask by itself takes equal calls for one.
    batch, new = client.ledger.batch(key or _new_key(fn), tag=tag)
    if new:
        is_call = getattr(fn, "isolates", False)
        call: Any = fn if is_call else serializing.call(fn, timeout=timeout, isolate=isolate)
        client.send([sent(batch, call, args, kwargs)], tag=tag, **options)
    return Future(batch)


def send_all(
    client: NotebookClient,
    fn: Callable[..., Any],
    rows: Sequence[tuple[Any, ...]],
    *,
    batch_size: int | None = None,
    **options: Any,
) -> list[Future]:
    """Have a client run a call for each row of arguments; the rest is as in `send`.

    Parameters
    ----------
    batch_size : int, optional
        Calls that are sent as one task; by default what their time and size make good.
    """
    sender = _Sender(client, fn, **options)
    if batch_size is not None:
        return sender.send(rows, batch_size)
    probes: list[Future] = []
    if sender.pace.seconds < 0 and len(rows) > 2 * PROBES and client.connected:
        probes = sender.send(rows[:PROBES], 1, as_batch=True)
        _probe(probes)
        rows = rows[PROBES:]
    nbytes = max(sender.pace.nbytes, sender.weigh(rows[:PROBES]))
    size = size_for(len(rows), cores=client.cores, seconds=sender.pace.seconds, nbytes=nbytes)
    return probes + sender.send(rows, size)


def keep(client: NotebookClient, value: Any, *, priority: int = 0) -> Future:
    """Have the cluster keep a value, so that it travels once, however many calls have the future among their arguments.

    It is of a batch, for only then may these calls be sent many at a time.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")  # what Dask recommends against it is this
        (future,) = _Sender(client, kept, priority=priority).send([(value,)], 1, as_batch=True)
    return future


def _probe(probes: Sequence[Future]) -> None:
    """Wait a moment for some calls; of those that are not done by then nothing is known, until they are."""
    deadline = time.monotonic() + PATIENCE
    for future in probes:
        future.batch.want()
    for future in probes:
        if not future.batch.wait(future.done, max(0.0, deadline - time.monotonic())):
            return
    # What is left of the way of those is short.
    for future in probes:
        future.batch.wait(future.settled, PATIENCE)


class _Sender:
    """Sends the calls of one function, each of them before its methods return."""

    def __init__(
        self,
        client: NotebookClient,
        fn: Callable[..., Any],
        *,
        tag: str = "",
        retries: int | None = None,
        priority: int = 0,
    ) -> None:
        _check(fn)
        self._client, self._fn, self._tag, self._retries = client, fn, tag, retries
        self._options: dict[str, Any] = {"tag": tag, "retries": retries, "priority": priority}
        self._call = serializing.call(fn)
        self.pace = pace_of(fn)

    def weigh(self, rows: Sequence[tuple[Any, ...]]) -> float:
        """Bytes of a call's arguments, on average."""
        calls, arguments = self._calls(rows)
        return 0.0 if arguments.alone or not rows else calls.nbytes / len(rows)

    def send(self, rows: Sequence[tuple[Any, ...]], size: int, *, as_batch: bool = False) -> list[Future]:
        """Send so many calls as one task, unless Dask must see what they depend on."""
        futures: list[Future] = []
        tasks: list[Sent] = []
        try:
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                futures += self._make(tasks, part, together=size > 1 or as_batch)
                if len(tasks) >= TOGETHER:
                    self._client.send(tasks, **self._options)
                    tasks = []
            self._client.send(tasks, **self._options)
        except BaseException as error:
            # Something cannot be sent, or the user has interrupted it: nobody has the futures, and who mends it sends all of it again.
            for task in tasks:
                self._client.ledger.forget(task.batch, error)
            self._client.ledger.cancel_all({future.batch: None for future in futures})
            raise
        return futures

    def _make(self, tasks: list[Sent], rows: Sequence[tuple[Any, ...]], *, together: bool) -> list[Future]:
        calls, arguments = self._calls(rows) if together else (None, None)
        if calls is None or arguments is None or arguments.alone:
            tasks.extend(map(self._single, rows))  # one by one: those before an error are known
            return [Future(task.batch) for task in tasks[-len(rows) :]]
        tasks.append(made := self._batch(calls, arguments, len(rows)))
        return [Future(made.batch, index) for index in range(len(rows))]

    def _calls(self, rows: Sequence[tuple[Any, ...]]) -> tuple[Calls, Arguments]:
        arguments = Arguments()
        taken = [arguments.take(row) for row in rows]
        with serializing.blaming(rows, f"arguments of {self._call}"):
            calls = Calls(self._call, taken if not arguments.alone else [], retries=self._retries or 0)
        return calls, arguments

    def _batch(self, calls: Calls, arguments: Arguments, size: int) -> Sent:
        batch, _ = self._client.ledger.batch(_new_key(self._fn), size=size, tag=self._tag, pace=self.pace)
        return Sent(batch, calls, [one.dask for one in arguments.batches], {})

    def _single(self, row: tuple[Any, ...]) -> Sent:
        batch, _ = self._client.ledger.batch(_new_key(self._fn), tag=self._tag)
        return sent(batch, self._call, row, {})


def sent(batch: Batch, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sent:
    """A call as it is sent.

    Raises
    ------
    CannotSerialize
        An argument cannot be; its batch has ended with that.
    """
    arguments = Arguments()
    try:
        given, named = _given(arguments, call, args, kwargs)
    except BaseException as error:
        batch.ledger.forget(batch, error)
        raise
    if arguments.batches:
        return Sent(batch, Filled(call), [[one.dask for one in arguments.batches], given, named], {})
    return Sent(batch, call, given, named)


def _given(
    arguments: Arguments, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given = [_rest(one, arguments.take(one), f"argument {number} of {call}") for number, one in enumerate(args)]
    named = {name: _rest(one, arguments.take(one), f"argument {name} of {call}") for name, one in kwargs.items()}
    return tuple(given), named


def _has_dasks(value: Any) -> bool:
    """Whether Dask would find a future of its own in it."""
    if type(value) in (list, tuple, set):
        return not are_plain(value) and any(map(_has_dasks, value))
    if type(value) is dict:
        return any(map(_has_dasks, value.values()))
    return isinstance(value, DaskFuture)


def _rest(value: Any, taken: Any, name: str) -> Any:
    """What was taken of a value, with all packed that is no future and has none in it."""
    if isinstance(taken, DaskFuture | Place):
        return taken
    if taken is value and not _has_dasks(value):
        return serializing.packed(value, name)
    if type(taken) is dict:
        return {key: _rest(value[key], one, f"{name}[{key!r}]") for key, one in taken.items()}
    return type(taken)(_rest(old, one, name) for old, one in zip(value, taken, strict=True))


def _check(fn: Any) -> None:
    if not callable(fn):
        raise TypeError(f"what is submitted must be callable, not {fn!r}")


def _new_key(fn: Callable[..., Any]) -> str:
    return f"{funcname(fn)}-{uuid.uuid4()}"
