"""Which parameter of a queue's tasks goes along with failure: pure."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from hpcnb.views.queue import introspection_text

SAMPLE = 20_000
"""Tasks of each kind that are looked at, chosen by chance when there are more."""
_VALUES, _THRESHOLDS, _FEW, _ITEMS = 20, 19, 50, 8
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How one parameter divides tasks that failed from tasks that succeeded, where it does so best.

    Parameters
    ----------
    parameter, value : str
        ``mesh.size`` and ``> 200``, ``≤ 200``, ``= "fine"``, ``≠ "fine"``, ``is missing`` or ``is there``.
    failed, tasks : int
        Of the tasks for which that is so.
    other_failed, other_tasks : int
        Of the others.
    phi : float
        Yule's phi, the correlation of two attributes: 1 if these tasks fail and no others, 0 if that has nothing to do with it.
    p : float
        How probable a difference as large is by chance: Fisher's exact test, doubled for both sides, times the number of divisions that
        were tried (Bonferroni).
    """

    parameter: str
    value: str
    failed: int
    tasks: int
    other_failed: int
    other_tasks: int
    phi: float
    p: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Introspection:
    """What a queue's failures have in common.

    Parameters
    ----------
    succeeded, failed : int
        Tasks that were looked at.
    findings : tuple of Finding
        One for each parameter, the least probable by chance first.
    """

    succeeded: int
    failed: int
    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        return introspection_text(self.succeeded, self.failed, [vars(one) for one in self.findings])


def introspect(succeeded: Sequence[Any], failed: Sequence[Any]) -> Introspection:
    """Find the parameters with which failure goes along, among tasks that are dicts.

    Each parameter is looked at alone. Of all ways to divide the tasks by it (one of its values against the rest; for numbers, the
    quantiles; whether it is there) the one counts in which failed and succeeded tasks differ most, by the phi coefficient. What is
    found is a correlation: the cause may be another parameter that goes along with this one.

    References
    ----------
    Yule, G. U. (1912), On the methods of measuring association between two attributes. J. Royal Statistical Society 75, 579-652.
    Fisher, R. A. (1922), On the interpretation of chi-squared from contingency tables. J. Royal Statistical Society 85, 87-94.
    The question, and to answer it by counting keys and values, are those of FireWorks' ``lpad introspect``.
    """
    rows = [(dict(_flat(task)), bad) for tasks, bad in ((succeeded, False), (failed, True)) for task in tasks]
    names = sorted({name for row, _ in rows for name in row})
    tried = [found for name in names for found in _divided(name, rows)]
    best: dict[str, Finding] = {}
    for one in tried:
        if one.parameter not in best or one.phi > best[one.parameter].phi:
            best[one.parameter] = one
    scaled = [_with_p(one, len(tried)) for one in best.values()]
    order = sorted(scaled, key=lambda one: (one.p, -one.phi, one.parameter))
    return Introspection(succeeded=len(succeeded), failed=len(failed), findings=tuple(order))


def sample(things: Iterable[T], most: int = SAMPLE) -> list[T]:
    """So many of them, each with the same chance, the same ones each time."""
    chance = random.Random(0)  # noqa: S311 - no secret
    kept: list[T] = []
    for number, thing in enumerate(things):
        if number < most:
            kept.append(thing)
        elif (place := chance.randrange(number + 1)) < most:
            kept[place] = thing
    return kept


def _flat(task: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a task, by their paths: ``a.b[0]``."""
    if isinstance(task, dict):
        for key, value in task.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(task, list):
        for place, value in enumerate(task[:_ITEMS]):
            yield from _flat(value, f"{name}[{place}]")
    else:
        yield name, task


_Rows = Sequence[tuple[dict[str, Any], bool]]


def _divided(name: str, rows: _Rows) -> Iterator[Finding]:
    """The ways in which a parameter divides the tasks."""
    there = [(row[name], bad) for row, bad in rows if name in row]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in there)
    shown = Counter(json.dumps(value) for value, _ in there)
    tests: list[tuple[str, str, Callable[[Any], bool]]] = []
    if len(there) < len(rows):
        yield from _counted(name, "is missing", "is there", [(name not in row, bad) for row, bad in rows])
    if numbers:
        values = sorted(value for value, _ in there)
        limits = set(values)
        if len(limits) > _FEW:
            limits = {values[len(values) * step // (_THRESHOLDS + 1)] for step in range(1, _THRESHOLDS + 1)}
        tests += [(f"> {limit:g}", f"≤ {limit:g}", partial(_above, limit)) for limit in sorted(limits)]
    if len(shown) <= _VALUES or not numbers:
        common = [text for text, count in shown.most_common(_VALUES) if count > 1 or len(shown) <= _VALUES]
        tests += [(f"= {text}", f"≠ {text}", partial(_is, text)) for text in common]
    for text, opposite, test in tests:
        yield from _counted(name, text, opposite, [(test(value), bad) for value, bad in there])


def _is(text: str, value: Any) -> bool:
    return json.dumps(value) == text


def _above(limit: float, value: Any) -> bool:
    return bool(value > limit)


def _counted(name: str, text: str, opposite: str, pairs: Iterable[tuple[bool, bool]]) -> Iterator[Finding]:
    """The division as a finding, said of those that fail more often; nothing when it does not divide."""
    table = Counter(pairs)
    a, b, c, d = (table[where, bad] for where in (True, False) for bad in (True, False))
    if a * d < b * c:
        a, b, c, d, text = c, d, a, b, opposite
    if scale := math.sqrt((a + b) * (c + d) * (a + c) * (b + d)):
        counts = {"failed": a, "tasks": a + b, "other_failed": c, "other_tasks": c + d}
        yield Finding(parameter=name, value=text, phi=(a * d - b * c) / scale, p=1.0, **counts)


def _with_p(one: Finding, tried: int) -> Finding:
    tail = fisher(one.failed, one.tasks, one.failed + one.other_failed, one.tasks + one.other_tasks)
    return Finding(**{**vars(one), "p": min(1.0, 2 * tail * tried)})


def fisher(hits: int, drawn: int, marked: int, total: int) -> float:
    """How probable it is to draw so many marked ones, or a number farther from what is to be expected on that side.

    Examples
    --------
    >>> round(fisher(3, 4, 4, 8), 4)          # the lady who tastes tea
    0.2429
    """
    step = 1 if hits * total >= drawn * marked else -1
    last = min(drawn, marked) if step > 0 else max(0, drawn + marked - total)
    probability = 0.0
    for number in range(hits, last + step, step):
        ways = _log_choose(marked, number) + _log_choose(total - marked, drawn - number) - _log_choose(total, drawn)
        probability += (term := math.exp(ways))
        if term < probability * 1e-15:  # they only get smaller
            break
    return min(1.0, probability)


def _log_choose(of: int, some: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(some + 1) - math.lgamma(of - some + 1)
