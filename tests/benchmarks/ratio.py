"""How two things are compared here: in turns, in one run, as the ratio of their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def seconds(work: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], *, turns: int, peer: str) -> float:
    """Run both in turns, print both medians and their ratio; below 1 is faster than the peer."""
    times: list[tuple[float, float]] = []
    for turn in range(turns):
        pair = (seconds(ours), seconds(theirs)) if turn % 2 == 0 else (seconds(theirs), seconds(ours))[::-1]
        times.append(pair)
    mine, other = zip(*times, strict=True)
    return ratio(name, mine, other, peer=peer)


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], *, peer: str) -> float:
    """Print the medians of two series of seconds, and return their ratio."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(f"\n{name}: {mine * 1e3:.1f} ms, {peer} {other * 1e3:.1f} ms, ratio {mine / other:.2f}")
    return mine / other
