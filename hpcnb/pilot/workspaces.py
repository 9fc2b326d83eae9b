"""The workspaces of drop boxes at a site: filled, carried out by way of a queue, looked at and removed.

A workspace holds ``input/``, ``output/`` and, written last, the executable ``job.sh``; who runs it leaves ``stdout.txt``, ``stderr.txt`` and,
last again, ``finished.out`` with the return code, the begin and the end, a line each. Ours beside those: ``.task``, the queue's
task that carries it out. Anybody may fill workspaces, and anybody may carry them out.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.lease import Watch
from hpcnb.pilot.queue.owner import Asker
from hpcnb.pilot.queue.place import Place, refused, whole
from hpcnb.pilot.queue.states import TaskState

PIECE = 16 << 20
"""Bytes of a file that travel at once."""
MOST = 1_000_000
"""Bytes of a job's stdout, and of its stderr, that are told: the last ones."""

_FINISHED, _TASK = "finished.out", ".task"
_TIME = "%Y-%m-%d %H:%M:%S"
_COMMAND = (
    "cd {workspace} || exit; test -e finished.out && exit 0; began=$(date '+%F %T'); "
    "./job.sh >stdout.txt 2>stderr.txt; rc=$?; "
    "printf '%s\\n' $rc \"$began\" \"$(date '+%F %T')\" >.finished.out && mv .finished.out finished.out || exit; exit $rc"
)


def _begin(root: Path, _lines: Iterable[str], *, workspaces: str) -> str:
    """Where workspaces are; made when it is not there."""
    path = Path(os.path.expandvars(workspaces)).expanduser() if workspaces else root / "workspaces"
    if not path.is_absolute():
        raise QueueError(
            f"{workspaces!r} is no absolute path", remedy="Say where at the site the workspaces are to be."
        )
    with refused(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise QueueError(f"others can write to {path}, from which scripts are run as you", remedy=f"chmod o-w {path}")
    return str(path.resolve())


def _stage(_root: Path, lines: Iterable[str], *, workspace: str) -> bool:
    """Write pieces of files, each line one; whether there is anything left to be written.

    A file is there once it is whole. With ``job.sh`` the workspace is ready, and is changed no more.
    """
    path = Path(workspace)
    if (path / "job.sh").exists():
        return False
    with refused(path):
        for folder in ("input", "output"):
            (path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for line in lines:
            piece = json.loads(line)
            with refused(path / piece["name"]):
                _put(path, **piece)
    return True


def _put(path: Path, *, name: str, offset: int, data: str, mode: int | None) -> None:
    # All asides are in the workspace itself, by short names: a name may be as long as the file system allows.
    aside = path / f".{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:16]}"
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | (0 if offset else os.O_TRUNC), 0o600), "wb") as file:
        file.seek(offset)
        file.write(base64.b64decode(data))
        if mode is not None:
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
    if mode is not None:
        aside.rename(path / name)


def _finished(_root: Path, lines: Iterable[str]) -> list[bool]:
    """Of each workspace whether it is finished, or gone, as what lies on scratch may be."""
    paths = [Path(json.loads(line)) for line in lines]
    there = {folder: {path.name for path in folder.iterdir()} for folder in {path.parent for path in paths}}
    return [path.name not in there[path.parent] or _ended(path) is not None for path in paths]


def _ended(path: Path) -> list[str] | None:
    """The lines of ``finished.out``; None while there is none, or somebody still writes it."""
    try:
        lines = (path / _FINISHED).read_text(errors="replace").splitlines(keepends=True)
    except OSError:
        return None
    return [line.strip() for line in lines] if lines and lines[0].endswith("\n") else None


def _result(_root: Path, _lines: Iterable[str], *, workspace: str) -> dict[str, Any]:
    path = Path(workspace)
    lines = [*(_ended(path) or []), "", "", ""][:3]
    return {
        "rc": int(lines[0]) if re.fullmatch("-?[0-9]{1,9}", lines[0]) else None,
        "stdout": _tail(path / "stdout.txt"),
        "stderr": _tail(path / "stderr.txt"),
        "start": lines[1] or None,
        "end": lines[2] or None,
    }


def _tail(path: Path) -> str:
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - MOST))
            text = file.read(MOST).decode(errors="replace")
    except OSError as exc:
        return "" if isinstance(exc, FileNotFoundError) else f"({path.name} cannot be read: {exc.strerror})"
    return text if size <= MOST else f"… {size - MOST:,} bytes before this are left out\n{text}"


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """A regular file, to be read; anything else, at which one could wait for ever, is an `OSError`."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file", str(path))
        yield file


def _get(_root: Path, _lines: Iterable[str], *, path: str, offset: int) -> list[Any]:
    """A piece of a file, and whether it is the last."""
    try:
        with opened(path) as file:
            file.seek(offset)
            data = file.read(PIECE)
            last = offset + len(data) >= os.fstat(file.fileno()).st_size or not data
    except OSError as exc:
        raise QueueError(f"{path} cannot be read: {exc.strerror}") from exc
    return [base64.b64encode(data).decode(), last]


def _remove(_root: Path, _lines: Iterable[str], *, workspace: str) -> None:
    path = Path(workspace)
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass  # somebody was faster, or it was never there
    except OSError as exc:
        raise QueueError(f"cannot remove {path}: {exc.strerror}", evidence=str(exc)) from exc


# -- carrying out -----------------------------------------------------------------------------------------------------


def _carry_out(root: Path, _lines: Iterable[str], *, workspaces: str, queue: str, alone: bool) -> dict[str, Any]:
    """Have a queue carry out every workspace that is ready, each by one task; say how many are left, and who may drain it.

    Parameters
    ----------
    alone : bool
        No job drains the queue, nor will: what was killed is not gone on with.
    """
    asker = _Tasks(Place.named(queue, root=root))
    ready = list(_ready(Path(workspaces)))
    added = 0
    tasks: dict[int, Path] = {}
    for path in ready:
        with contextlib.suppress(FileNotFoundError):  # who has filled it has removed it
            number, new = asker.task(path)
            tasks[number] = path
            added += new
    left = dict.fromkeys(("Pending", "Running", "Killed"), 0)
    for state, number in asker.states({number: asker.line(path) for number, path in tasks.items()}):
        if state is None:  # of another queue of that name, which is no longer
            (tasks[number] / _TASK).unlink(missing_ok=True)
            continue
        if state in (TaskState.WAITING, TaskState.PENDING, TaskState.RUNNING):
            left["Running" if state is TaskState.RUNNING else "Pending"] += 1
        elif state is TaskState.KILLED and not alone:
            left["Killed"] += 1
        else:
            asker.give_up(tasks[number], number)
    return {"added": added, "left": left, "owned": asker.owned(), "run": asker.last_run()}


def _ready(folder: Path) -> Iterator[Path]:
    """The workspaces that are to be carried out."""
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if not entry.is_dir(follow_symlinks=False) or entry.stat().st_uid != os.getuid():
                continue  # what another user has left is not run as us
            # Who fills it by other means than ours makes the script executable when it is whole.
            if (path / "job.sh").stat().st_mode & stat.S_IXUSR and not (path / _FINISHED).exists():
                yield path


class _Tasks:
    """The tasks of a queue that carry out workspaces.

    Parameters
    ----------
    place : Place
        Of the queue, which is made when it is not there.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        if not place.exists:
            with contextlib.suppress(QueueError):  # somebody else makes it; what else is wrong the next line says
                place.make()
        place.check()
        self._asker = Asker(place)

    def task(self, path: Path) -> tuple[int, bool]:
        """The task that carries out a workspace, and whether it is new."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((path / _TASK).read_text()), False
        script = (path / "job.sh").stat()
        # The same request, should we be killed before its answer is written down: a request is carried out once.
        word = f"{path} {script.st_ino} {script.st_mtime_ns}"
        name = f"workspace-{hashlib.sha256(word.encode(errors='surrogateescape')).hexdigest()[:32]}"
        edges: dict[str, Any] = {"edges": False, "requires": [], "after": []}
        number = int(self._asker.ask("add", [self.line(path) + "\n"], name=name, priority=0, **edges)[0])
        with refused(path / _TASK), whole(path / _TASK) as file:
            file.write(str(number))
        return number, True

    @staticmethod
    def line(path: Path) -> str:
        """What carries out a workspace, as a task of the queue."""
        return json.dumps(_COMMAND.format(workspace=shlex.quote(str(path))))

    def states(self, wanted: Mapping[int, str]) -> list[tuple[TaskState | None, int]]:
        """The states of tasks, of which it is known what they are; None: it is not, or not there."""
        if not wanted:
            return []
        rows = self._asker.ask("tasks", after=min(wanted) - 1, most=max(wanted) - min(wanted) + 1, state=None)
        found = {row[0]: TaskState(row[1]) for row in rows if row[4] == wanted.get(row[0])}
        return [(found.get(number), number) for number in sorted(wanted)]

    def give_up(self, path: Path, number: int) -> None:
        """Finish a workspace whose task has ended without doing so."""
        if not path.is_dir() or (path / _FINISHED).exists():
            return
        attempts = self._asker.ask("task", id=number)["attempts"]
        last = attempts[-1] if attempts else {}
        why = last.get("error") or f"its task {number} has ended without a word"
        now = time.strftime(_TIME)
        with refused(path / _FINISHED):
            with open(path / "stderr.txt", "a", encoding="utf-8", errors="replace") as file:
                file.write(f"{why}\n")
            with whole(path / _FINISHED) as file:
                file.write(
                    f"{last.get('code') or -1}\n{_told(last.get('began')) or now}\n{_told(last.get('ended')) or now}\n"
                )

    def owned(self) -> bool:
        """Whether a pilot owns the queue; to be asked after something else was, for that finds out whether it still lives."""
        return Watch(self.place).claimable() is None

    def last_run(self) -> str:
        """The token of the job that was submitted last for this queue."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return max(os.scandir(self.place / "runs"), key=lambda entry: entry.stat().st_mtime).name
        return ""


def _told(when: float | None) -> str:
    return time.strftime(_TIME, time.localtime(when)) if when else ""


CALLS: dict[str, Callable[..., Any]] = {
    "workspaces.begin": _begin,
    "workspaces.stage": _stage,
    "workspaces.finished": _finished,
    "workspaces.result": _result,
    "workspaces.get": _get,
    "workspaces.remove": _remove,
    "workspaces.carry_out": _carry_out,
}
