"""`submit_and_wait`: leave a job in a drop box, and wait until it is finished."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcnb.dropbox.job import Refused, brief, mapping, text
from hpcnb.dropbox.written import whole
from hpcnb.errors import QueueError
from hpcnb.pilot.queue.place import home

_SOON = 0.05


def default_folder() -> Path:
    """The drop box of those who name none."""
    return home() / "dropbox"


def submit_and_wait(
    dropbox: str | os.PathLike[str],
    job: Mapping[str, Any] | None = None,
    period: float = 10,
    *,
    inputs: Mapping[str, str | os.PathLike[str]] | None = None,
    outputs: Mapping[str, str | os.PathLike[str]] | None = None,
    args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Leave a job in a drop box, wait until it is finished, and return what its file says then.

    A program that waits can be interrupted: the job goes on. Its ``.job.finished`` stays where it is, in any case.

    Parameters
    ----------
    dropbox : path
        The directory, to which a runner sees (``hpcnb dropbox run``); or, without a `job`, the name of a script, for the drop box
        ``~/.hpcnb/dropbox``.
    job : mapping, optional
        ``script``, ``args``, ``input_map`` and ``output_map``, as in a job's file.
    period : number
        Seconds between two looks, at most.
    inputs, outputs, args : mapping
        Of the script, where no `job` is given; paths may be relative.

    Raises
    ------
    QueueError
        There is no such directory, the job cannot be written, or what was written back makes no sense. That a job has failed is no
        error here: ``result["job"]["status"]`` is ``"error"``, and ``result["job"]["message"]`` says why.

    Examples
    --------
    >>> job = {"script": "segment", "input_map": {"input": "/data/a.mp3"}, "output_map": {"segments": "/tmp/a.seg"}}
    >>> submit_and_wait("/srv/dropbox", job)["job"]["status"]                                         # doctest: +SKIP
    'ok'
    >>> submit_and_wait("segment", inputs={"input": "a.mp3"}, outputs={"segments": "a.seg"})          # doctest: +SKIP
    """
    if job is None:
        job = {"script": os.fspath(dropbox), "args": dict(args or {})}
        job |= {"input_map": _absolute(inputs), "output_map": _absolute(outputs)}
        dropbox = default_folder()
    elif inputs or outputs or args:
        raise QueueError("job and inputs=, outputs= or args= together", remedy="Write all of it into the job.")
    path = _left(Path(dropbox), dict(job))
    try:
        return _awaited(path, period)
    except KeyboardInterrupt as exc:
        exc.add_note(f"The job goes on; how it ends will be in {path}.finished")
        raise


def _absolute(paths: Mapping[str, str | os.PathLike[str]] | None) -> dict[str, str]:
    return {name: os.path.abspath(path) for name, path in (paths or {}).items()}  # noqa: PTH100 - without following links


def _left(folder: Path, job: dict[str, Any]) -> Path:
    """Write a job's file, whole."""
    for key in ("input_map", "output_map"):
        if isinstance(job.get(key), Mapping):
            job[key] = {name: os.fspath(p) if isinstance(p, os.PathLike) else p for name, p in job[key].items()}
    if not folder.is_dir():
        raise QueueError(f"there is no drop box {folder}", remedy="`hpcnb dropbox run` makes one, and sees to it.")
    try:
        data = text(job)
    except Refused as exc:
        raise QueueError(str(exc), remedy="Use texts and numbers; nothing was submitted.") from None
    path = folder / f"tmp{secrets.token_hex(8)}.job"
    try:
        with whole(path) as file:
            file.write(data)
    except OSError as exc:
        raise QueueError(f"cannot write {path}: {exc.strerror}", remedy="Nothing was submitted.") from exc
    return path


def _awaited(path: Path, period: float) -> dict[str, Any]:
    finished, pause = Path(f"{path}.finished"), _SOON
    while (found := _read(path, finished)) is None:
        time.sleep(pause)  # there is nothing else to wait for: the directory may be on another machine's disk
        pause = min(pause * 1.5, max(period, _SOON))
    return found


def _read(path: Path, finished: Path) -> dict[str, Any] | None:
    """What a finished job's file says; None while there is none, or it may not be whole."""
    # Other programs write this file in its place, and remove the one before it when they are done.
    if any(os.path.lexists(before) for before in (path, f"{path}.submitted")):
        return None
    try:
        content = mapping(finished.read_bytes())
    except FileNotFoundError:
        if path.parent.is_dir():
            return None
        raise QueueError(f"the drop box {path.parent} is no longer there") from None
    except (OSError, Refused) as exc:
        raise QueueError(f"{finished} cannot be read: {exc}") from exc
    if not isinstance(content.get("job"), dict):
        raise QueueError(f"{finished} does not say how the job has ended: {brief(content)}")
    return content
