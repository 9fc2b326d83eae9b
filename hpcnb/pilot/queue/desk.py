"""What can be done with the queues of a site, at the site: called here, or by `python -m hpcnb.pilot.queue.desk` from afar."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hpcnb.errors import HPCError, QueueError
from hpcnb.pilot import workspaces
from hpcnb.pilot.queue.lease import Lease, Watch
from hpcnb.pilot.queue.owner import Asker, last_counts
from hpcnb.pilot.queue.place import Place, refused
from hpcnb.pilot.queue.printed import printed
from hpcnb.pilot.queue.states import TaskState

PARTING = 15.0
"""Seconds in which an owner that is about to end may let go of a queue that is to be deleted."""

Lines = Iterable[str]


def serve(root: Path, call: str, lines: Lines, arguments: dict[str, Any]) -> Any:
    """Do something with the queues below a folder.

    Raises
    ------
    QueueError
        It cannot be.
    """
    return _CALLS[call](root, lines, **arguments)


def _existing(root: Path, name: str) -> Place:
    place = Place.named(name, root=root)
    place.check()
    return place


def _create(root: Path, _lines: Lines, *, name: str) -> None:
    place = Place.named(name, root=root)
    place.make()
    Asker(place).ask("status")  # so that its counts are there to be listed


def _check(root: Path, _lines: Lines, *, name: str) -> str:
    return str(_existing(root, name).path)


def _names(root: Path, _lines: Lines) -> list[str]:
    folder = root / "queues"
    return sorted(path.name for path in folder.iterdir() if _shown(path)) if folder.is_dir() else []


def _shown(path: Path) -> bool:
    return not path.name.startswith(".") and Place(path).exists


def _listing(root: Path, lines: Lines) -> list[Any]:
    """Each queue's name and counts: as its owner has left them, unless there is something new to be carried out."""
    places = [Place(root / "queues" / name) for name in _names(root, lines)]
    return [[place.name, last_counts(place) or Asker(place).ask("status")] for place in places]


def _ask(root: Path, lines: Lines, *, name: str, op: str, request: str, arguments: dict[str, Any]) -> Any:
    return Asker(_existing(root, name)).ask(op, lines, name=request, **arguments)


def _delete(root: Path, _lines: Lines, *, name: str) -> None:
    place = _existing(root, name)
    watch, end = Watch(place), time.monotonic() + PARTING
    while (lease := _claimed(place, watch)) is None and time.monotonic() < end:
        time.sleep(0.1)  # a job that has nothing left to do is about to let go
    if lease is None:
        owner = watch.owner() or {}
        where = f"process {owner.get('pid')} on {owner.get('host')}"
        raise QueueError(f"queue {name!r} is in use", where=where, remedy="Pause it and end its jobs first.")
    lease.drop()
    aside = place.path.with_name(f".{name}.{secrets.token_hex(4)}")
    place.path.rename(aside)  # at once gone for all
    shutil.rmtree(aside)


def _claimed(place: Place, watch: Watch) -> Lease | None:
    return None if (after := watch.claimable()) is None else Lease.claim(place, after)


def _log(
    root: Path, _lines: Lines, *, name: str, task: int, attempt: int | None = None, read: list[int] | None = None
) -> dict[str, Any]:
    """What an attempt has printed, by default the last one, also if it runs; after so many bytes, by default all."""
    place = _existing(root, name)
    found = Asker(place).ask("task", id=task)
    running = found["running"]
    begun = [*found["attempts"], *([running | {"state": TaskState.RUNNING.title, "error": ""}] if running else [])]
    if not begun:
        raise QueueError(f"task {task} was never begun: it is {TaskState(found['row'][1]).title}")
    chosen = next((one for one in reversed(begun) if attempt in (None, one["number"])), None)
    if chosen is None:
        numbers = ", ".join(str(one["number"]) for one in begun)
        raise QueueError(f"task {task} has no attempt {attempt}; it has {numbers}")
    text, now = printed(place / "logs", task, chosen, read)
    attempts = [{word: one[word] for word in ("number", "state", "error")} for one in begun]
    return {"attempt": chosen["number"], "state": chosen["state"], "text": text, "read": now, "attempts": attempts}


def _certified(root: Path, _lines: Lines, *, name: str) -> bool:
    return (_existing(root, name) / "tls").is_dir()


def _certify(root: Path, _lines: Lines, *, name: str, files: dict[str, str]) -> None:
    """Keep the certificates of the owner and the workers, unless there are some."""
    place = _existing(root, name)
    aside = place / f".tls.{secrets.token_hex(4)}"
    with refused(aside):
        aside.mkdir(mode=0o700)
        for file, text in files.items():
            _write(aside / file, text.encode())
        try:
            aside.rename(place / "tls")
        except OSError:
            shutil.rmtree(aside)
            if not (place / "tls").is_dir():  # else somebody was faster
                raise


def _keep(root: Path, _lines: Lines, *, name: str, data: str) -> str:
    """Keep a pickled function where the workers find it."""
    folder = _existing(root, name) / "functions"
    path = folder / f"{secrets.token_hex(8)}.pkl"
    with refused(path):
        folder.mkdir(mode=0o700, exist_ok=True)
        _write(path, base64.b64decode(data))
    return str(path)


def _write(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


_CALLS: dict[str, Callable[..., Any]] = {
    "create": _create,
    "check": _check,
    "names": _names,
    "listing": _listing,
    "ask": _ask,
    "delete": _delete,
    "log": _log,
    "certified": _certified,
    "certify": _certify,
    "keep": _keep,
    **workspaces.CALLS,
}


def main(root: str, mark: str) -> None:
    """Do what stdin says, and print what came of it between two marks: a login shell prints what it likes around it."""
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    call, arguments = json.loads(sys.stdin.readline())
    try:
        answer = {"value": serve(Path(root), call, sys.stdin, arguments)}
    except HPCError as exc:
        answer = {"error": exc.to_json()}
    sys.stdout.write(f"{mark}{json.dumps(answer)}{mark}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
