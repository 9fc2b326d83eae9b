"""Results by content: what a call gave is kept at the site, and given to whoever calls the same again.

A folder a site, shared by all clusters and notebooks of the user there::

    cache/<2 hex>/<62 hex>          a result, under the fingerprint of its call: digest, then pickle
    cache/<2 hex>/<62 hex>.claim-N  somebody computes it; the number in it grows while he lives

A result appears by rename, whole, and is believed only if its digest is right. Who finds a claim waits for the result instead
of computing it, too. A claim that does not grow any more is a dead one's: the next claim, N + 1, is made beside it, which only
one can do. All of this needs a file system that creates and renames atomically, and no clocks that agree.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask

from hpcnb.pilot import pickled
from hpcnb.pilot.worker.fingerprint import environment, fingerprint
from hpcnb.pilot.worker.sweep import SIZE, sweep_now_and_then, used
from hpcnb.pilot.worker.tally import tell

__all__ = ["Cache", "Cached"]

log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between two signs of life of who computes."""
STALE = 10.0
"""Seconds without one after which he is dead."""
LOOK = 0.1
"""Seconds between two looks of who waits for him."""


@dataclass(frozen=True, kw_only=True)
class Cached:
    """A function whose results are kept and found again; called like it.

    Parameters
    ----------
    fn : callable
    code : str
        Its fingerprint, taken where it was defined.
    content : callable, optional
        Gives what the arguments are known by, for arguments that are not known by themselves.
    """

    fn: Callable[..., Any]
    code: str
    content: Callable[..., Any] | None = None

    @classmethod
    def of(cls, fn: Callable[..., Any]) -> Cached:
        """Take the fingerprint of a function here and now."""
        return cls(fn=fn, code=fingerprint(fn))

    @property
    def __name__(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        known = (args, sorted(kwargs.items())) if self.content is None else self.content(*args, **kwargs)
        key = fingerprint(self.code, environment(), known)
        computed = []

        def compute() -> Any:
            computed.append(key)
            return self.fn(*args, **kwargs)

        result = Cache.of_site().result(key, compute)
        if not computed:
            tell(cached=1)
        return result


class Cache:
    """The results in one folder.

    Parameters
    ----------
    directory : Path
        Made, private, when it is not there.
    limit : int
        Bytes; beyond it those go that were used longest ago (see `hpcnb.pilot.worker.sweep`).

    Examples
    --------
    >>> Cache(Path("/tmp/cache")).result("ab" * 32, lambda: 6 * 7)      # doctest: +SKIP
    42
    """

    def __init__(self, directory: Path, limit: int = SIZE) -> None:
        self._directory, self._limit = directory, limit

    @classmethod
    def of_site(cls) -> Cache:
        """The one of the site where this worker runs."""
        return cls(pickled.home() / "cache", dask.config.get("hpcnb.cache", SIZE))

    def result(self, key: str, compute: Callable[[], Any]) -> Any:
        """What is kept under a key, or else what `compute` gives, which is then kept; one computes, the others wait.

        Parameters
        ----------
        key : str
            Hexadecimal digits, three or more.
        compute : callable
            What it raises is raised, and not kept: whoever waited tries himself.

        Raises
        ------
        CannotSerialize
            The result cannot be written to a file.
        """
        place = self._directory / key[:2] / key[2:]
        while not (found := _read(place)):
            with _claim(place) as mine:
                if mine and not (found := _read(place)):  # it may have come between the two looks
                    found = (compute(),)
                    _write(place, found[0])
                    sweep_now_and_then(self._directory, place, self._limit)
            if found:
                break
        else:
            used(place)
        return found[0]


def _read(place: Path) -> tuple[Any, ...]:
    try:
        return pickled.read(place)
    except Exception as exc:  # its classes may have gone since: then it is computed again
        log.warning("the result kept as %s cannot be read: %r", place.name, exc)
        return ()


def _write(place: Path, value: Any) -> None:
    try:
        pickled.write(place, value)
    except OSError as exc:  # a full disk must not cost what took hours
        log.warning("a result could not be kept: %s", exc)


# -- who computes ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _claim(place: Path) -> Iterator[bool]:
    """Be the one who computes; False: somebody else was, and has ended, in whatever way."""
    try:
        pickled.make_folder(place.parent)
    except OSError as exc:
        log.warning("nothing can be kept: %s", exc)
        yield True
        return
    before = _last_claim(place)
    if before is not None and not _dead(before):
        yield False
        return
    mine = _numbered(place, 0 if before is None else _number(before) + 1)
    try:
        file = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # somebody was quicker
        yield False
        return
    except OSError as exc:
        log.warning("nobody can be told that this is computed: %s", exc)
        yield True
        return
    try:
        with _beating(file):
            yield True
    finally:
        os.close(file)
        for number in range(_number(mine), -1, -1):  # the dead ones' too; downwards, for they are looked for upwards
            _numbered(place, number).unlink(missing_ok=True)


def _numbered(place: Path, number: int) -> Path:
    return place.with_name(f"{place.name}.claim-{number}")


def _number(claim: Path) -> int:
    return int(claim.name.rpartition("-")[2])


def _last_claim(place: Path) -> Path | None:
    last = None
    for number in itertools.count():
        if not (claim := _numbered(place, number)).exists():
            return last
        last = claim
    return None


def _dead(claim: Path) -> bool:
    """Watch a claim until it has gone (False) or has not grown for too long (True)."""
    seen, since = b"", time.monotonic()
    while time.monotonic() < since + STALE:
        try:
            beat = claim.read_bytes()
        except FileNotFoundError:
            return False
        if beat != seen:
            seen, since = beat, time.monotonic()
        time.sleep(LOOK)
    return True


@contextlib.contextmanager
def _beating(file: int) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(file, stop), name="hpcnb claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(file: int, stop: threading.Event) -> None:
    count = 0
    while True:
        count += 1
        with contextlib.suppress(OSError):  # who is taken for dead is computed for twice, no more
            os.pwrite(file, b"%d\n" % count, 0)
        if stop.wait(BEAT):
            return
