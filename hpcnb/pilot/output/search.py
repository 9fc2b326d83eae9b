"""Finds what was printed in the logs of a run, at its site: also when worker, job and notebook are gone.

A question is JSON on stdin, its answer JSON behind `SAYS` on stdout. Standard library only, since each start of it is waited for.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcnb.pilot.output.tape import INDEX, Piece, Run, pieces

__all__ = ["HISTORY", "SAYS", "answer", "guessed", "main"]

SAYS = "hpcnb-search: "
HISTORY = "history.json"
"""Of the run directory."""
MOST = 2 << 20
"""Bytes of text in one answer."""
FIRST = 1 << 20
"""Bytes at the end of the logs that are searched first; eight times as many if that is not enough, and so on."""
HEAD = 100
"""Characters of a line in which it says how serious it is."""
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "FATAL": 50, "CRITICAL": 50}
_SAID = re.compile(rf"\b({'|'.join(LEVELS)})\b")


def main() -> int:
    """Answer one question."""
    question = json.load(sys.stdin)
    sys.stdout.write(f"\n{SAYS}{json.dumps(answer(**question))}\n")
    return 0


def answer(folder: str, what: str, **question: Any) -> dict[str, Any]:
    """Answer a question about the run in a folder, and about those that have added nodes to it.

    Parameters
    ----------
    folder : str
    what : str
        ``task``, ``lines``, or ``history``: what the nodes have done (see `hpcnb.pilot.scheduler.history`), nothing if none has been there.
    **question
        The arguments of `task`, or of `Query`.
    """
    base = Path(folder)
    if what == "history":
        kept = base / HISTORY
        history: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        return history
    folders = [base, *sorted(base.parent.glob(f"{base.name}-[0-9]*"))]
    return task(folders, **question) if what == "task" else Query(**question).search(folders)


# -- one task ----------------------------------------------------------------------------------------------------------


def task(folders: Iterable[Path], *, key: str, member: int | None = None, skip: int = 0) -> dict[str, Any]:
    """All that a task has printed.

    Parameters
    ----------
    folders
    key, member
        Of the call.
    skip : int
        Bytes that are known already.

    Returns
    -------
    dict
        ``runs``, a list of ``worker, host, attempt, time, text`` in order, and ``next``: how many bytes are known now, or None.
    """
    found: dict[Run, list[Piece]] = {}
    for index in _indices(folders):
        for piece in pieces(index):
            if piece.run.key == key and piece.run.member == member:
                found.setdefault(piece.run, []).append(piece)
    runs, at, room = [], 0, MOST
    for run in sorted(found, key=lambda run: (run.attempt, run.time)):
        text = b""
        for piece in found[run]:
            if at + piece.length > skip and room:
                begin = max(0, skip - at)
                taken = piece.read()[begin : begin + room]
                text, room = text + taken, room - len(taken)
            at += piece.length
        runs.append(
            {
                "worker": run.worker,
                "host": run.host,
                "attempt": run.attempt,
                "time": run.time,
                "text": text.decode("utf-8", "surrogateescape"),
            }
        )
    done = skip + MOST - room
    return {"runs": runs, "next": done if done < at else None}


def _indices(folders: Iterable[Path]) -> list[Path]:
    return [index for folder in folders for index in sorted((folder / "logs").glob(f"*{INDEX}"))]


# -- lines of several ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which lines are wanted.

    Parameters
    ----------
    target : str
        Part of a log's name, or else a task; empty: the job's, or the workers' if anything else is said.
    task : str
        The key of a task, or how it begins.
    node : str
        Part of a host's or a worker's name.
    level : int
        Lines of this level, and of higher ones.
    grep : str
        A regular expression.
    last : int
        So many lines.
    since : dict, optional
        Where the last answer ended: what came after it is wanted, and nothing else.
    """

    target: str = ""
    task: str = ""
    node: str = ""
    level: int = 0
    grep: str = ""
    last: int = 50
    since: Mapping[str, int] | None = None

    def search(self, folders: Iterable[Path]) -> dict[str, Any]:
        """The lines.

        Returns
        -------
        dict
            ``lines``: a list of ``time, worker, host, key, member, attempt, level, text``; ``sources``: the logs that were looked at;
            ``since``: for the next question.
        """
        sources, wanted = self._sources(list(folders))
        since: dict[str, int] = {}
        found: list[Piece] = []
        for path in sources:
            name = str(path)
            if path.suffix == INDEX:
                known = list(pieces(path))
                since[name] = len(known)
                found += known[(self.since or {}).get(name, 0) :]
            else:
                piece = _whole(path)
                begin = (self.since or {}).get(name, 0)
                since[name] = piece.length
                if begin < piece.length:
                    found.append(_from(piece, begin))
        found.sort(key=lambda piece: piece.time)
        lines = self._lines([piece for piece in found if self._may(piece, wanted)])
        names = [path.with_suffix(".log").name for path in sources]
        return {"lines": lines, "sources": names, "since": since}

    def _sources(self, folders: list[Path]) -> tuple[list[Path], str]:
        """The logs and indices to look at, and the task that is meant."""
        indices = _indices(folders)
        written = {index.with_suffix(".log") for index in indices}
        children = {path for index in indices for path in index.parent.glob(f"{index.stem}.*.log")}
        logs = [
            path for folder in folders for path in [*folder.glob("job.log"), *sorted((folder / "logs").glob("*.log"))]
        ]
        plain = [path for path in logs if path not in written | children]
        filtered = self.task or self.node or self.level or self.grep
        if not self.target:
            return indices if filtered else [path for path in plain if path.name == "job.log"], self.task
        named = [path for path in [*indices, *plain] if self.target in path.stem]
        return (named, self.task) if named else (indices, self.task or self.target)

    def _may(self, piece: Piece, task: str) -> bool:
        run = piece.run
        if piece.level and piece.level < self.level:
            return False
        if self.node and self.node not in run.host and self.node not in run.worker:
            return False
        return not task or (bool(run.key) and _name(run).startswith(task))

    def _lines(self, found: list[Piece]) -> list[tuple[Any, ...]]:
        size, total = FIRST, sum(piece.length for piece in found)
        while True:
            lines = [line for line in _split(_end_of(found, size)) if self._shows(line)]
            if len(lines) >= self.last or size >= total:
                return _bounded(lines[-self.last :])
            size *= 8

    def _shows(self, line: tuple[Any, ...]) -> bool:
        *_, level, text = line
        if level < self.level:
            return False
        return not self.grep or re.search(self.grep, text) is not None


def guessed(line: str) -> int:
    """The level of a line, by what it says of itself; 20, as of what is merely told, where it says nothing.

    Examples
    --------
    >>> guessed("WARNING:root:it is late")
    30
    """
    found = _SAID.search(line[:HEAD])
    return LEVELS[found[1]] if found else LEVELS["INFO"]


def _name(run: Run) -> str:
    return run.key if run.member is None else f"{run.key}[{run.member}]"


def _whole(path: Path) -> Piece:
    return Piece(run=Run(worker=path.stem, host=""), path=path, offset=0, length=path.stat().st_size)


def _from(piece: Piece, begin: int) -> Piece:
    return Piece(
        run=piece.run,
        path=piece.path,
        offset=piece.offset + begin,
        length=piece.length - begin,
        level=piece.level,
        stream=piece.stream,
        time=piece.time,
    )


def _end_of(found: list[Piece], size: int) -> list[Piece]:
    taken: list[Piece] = []
    for piece in reversed(found):
        if size <= 0:
            break
        taken.append(piece if piece.length <= size else _from(piece, piece.length - size))
        size -= piece.length
    return taken[::-1]


def _split(found: Iterable[Piece]) -> Iterator[tuple[Any, ...]]:
    """The lines of pieces; one that was written in several is one line."""
    begun: dict[Run, tuple[Piece, bytes]] = {}
    for piece in found:
        first, before = begun.pop(piece.run, (piece, b""))
        *whole, rest = (before + piece.read()).split(b"\n")
        for line in whole:
            yield _line(first, line)
            first = piece
        if rest:
            begun[piece.run] = (first, rest)
    for first, rest in begun.values():
        yield _line(first, rest)


def _line(piece: Piece, text: bytes) -> tuple[Any, ...]:
    run = piece.run
    shown = text.rpartition(b"\r")[2] or text.rstrip(b"\r")  # what a bar of progress has become in the end
    words = shown.decode("utf-8", "replace")
    return piece.time, run.worker, run.host, run.key, run.member, run.attempt, piece.level or guessed(words), words


def _bounded(lines: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The last of them that fit into an answer."""
    sizes = itertools.accumulate(len(line[-1]) + 200 for line in reversed(lines))
    fitting = sum(1 for _ in itertools.takewhile(lambda size: size < 2 * MOST, sizes))
    return lines[len(lines) - fitting :]
