"""The workspaces of drop boxes at a site, as they are reached from here, wherever that is."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hpcnb import config, handle
from hpcnb.dropbox.job import Refused
from hpcnb.dropbox.written import whole
from hpcnb.errors import QueueError
from hpcnb.pilot.queue.place import checked_name
from hpcnb.pilot.workspaces import PIECE, opened
from hpcnb.queue.desk import Desk, desk_of
from hpcnb.queue.queue import Queue

SCRIPT_MODE, INPUT_MODE = 0o750, 0o640
_SOONEST, _LATEST = 1.0, 30.0
"""Seconds between two questions of whether a job drains the queue, at first and later on."""
_PARTING = 5.0
"""Seconds after the end of a job in which one that follows it may begin, and go on with what was killed."""


class Workspaces:
    """The workspaces below one folder of a site.

    Parameters
    ----------
    site : str
        By default the default one.
    folder : str
        At the site; by default ``workspaces`` in hpcnb's own folder there.

    Attributes
    ----------
    site : str
        Its name.
    settings : dict
        What the site's entry says, for templates.
    """

    def __init__(self, site: str, folder: str) -> None:
        entry = config.load().site(site)
        of_its_own = {name: str(value) for name, value in entry if isinstance(value, str | int) and value != ""}
        self.settings = {**of_its_own, **entry.settings}
        self.site = entry.name
        self._desk: Desk = desk_of(site)
        self._folder = folder
        self._path = ""

    @property
    def path(self) -> str:
        """Where they are at the site, once it was asked."""
        self._path = self._path or self._desk("workspaces.begin", workspaces=self._folder)
        return self._path

    def of(self, number: str) -> str:
        """The workspace of a job."""
        return f"{self.path}/{socket.gethostname().partition('.')[0]}-{number}"

    def has(self, workspace: object) -> bool:
        """Whether this is one of them, and so ours to look into and to remove."""
        return (
            isinstance(workspace, str)
            and os.path.dirname(workspace) == self.path  # noqa: PTH120 - a path at the site
            and not os.path.basename(workspace).startswith(".")  # noqa: PTH119 - likewise
        )

    def stage(self, workspace: str, script: str, inputs: Mapping[str, str]) -> None:
        """Fill a workspace, unless that was done; raises `Refused` when an input cannot be read, or the site has no room.

        Parameters
        ----------
        script : str
            What is in ``job.sh``.
        inputs : mapping
            The names of files in ``input/``, and their paths here.
        """
        pieces = _pieces(script, inputs)
        try:
            for first in pieces:
                if not self._desk("workspaces.stage", _up_to(PIECE, first, pieces), workspace=workspace):
                    return
        except QueueError as exc:
            raise Refused(f"the workspace cannot be filled: {exc}") from exc
        except Refused:
            if self._desk("workspaces.stage", workspace=workspace):  # else what is missing now has been there long ago
                raise

    def finished(self, workspaces: Iterable[str]) -> set[str]:
        """Those that are finished."""
        asked = list(workspaces)
        lines = (json.dumps(workspace) + "\n" for workspace in asked)
        found = self._desk("workspaces.finished", lines) if asked else []
        return {workspace for workspace, ended in zip(asked, found, strict=True) if ended}

    def result(self, workspace: str) -> dict[str, Any]:
        """The return code and all that was printed."""
        return dict(self._desk("workspaces.result", workspace=workspace))

    def fetch(self, path: str, file: IO[bytes]) -> None:
        """Copy a file from the site; raises `QueueError` when it cannot be read."""
        last = False
        while not last:
            data, last = self._desk("workspaces.get", path=path, offset=file.tell())
            file.write(base64.b64decode(data))
        file.flush()

    def remove(self, workspace: str) -> None:
        """Remove a workspace, if it is there."""
        self._desk("workspaces.remove", workspace=workspace)

    def carry_out(self, queue: str, *, alone: bool) -> dict[str, Any]:
        """See `hpcnb.pilot.workspaces`."""
        return dict(self._desk("workspaces.carry_out", workspaces=self.path, queue=queue, alone=alone))

    # -- jobs that drain the queue -------------------------------------------------------------------------------------

    def drained(self, token: str) -> bool:
        """Whether the job with a token, or one that came after it, waits or runs."""
        spec = handle.spec_for(self.site).to_json()
        asked = handle.agent().call("alive", site=self.site, spec=spec, token=token)
        return bool(handle.run(asked))

    def drain(self, queue: str, wishes: Mapping[str, Any]) -> str:
        """Submit a job that drains a queue; returns its id."""
        return Queue(self._desk, queue).launch(**wishes)[0]


class Drainer:
    """Sees to it that one job drains a queue while there is work.

    Parameters
    ----------
    workspaces : Workspaces
    queue : str
    wishes : mapping
        What the batch system is asked for.

    Raises
    ------
    HPCError
        The queue's name, or a wish, cannot be.
    """

    def __init__(self, workspaces: Workspaces, queue: str, wishes: Mapping[str, Any]) -> None:
        self._workspaces = workspaces
        self._queue = checked_name(queue)
        handle.spec_for(
            workspaces.site, **wishes
        )  # what is wrong with these is said now, and not when the first job comes
        self._wishes = wishes
        self._pause, self._asked = _SOONEST, 0.0
        self._gone: float | None = None

    def round(self) -> tuple[int, str]:
        """Have what is ready carried out; how much is left, and the id of the job that was submitted for it, if any."""
        found = self._workspaces.carry_out(self._queue, alone=False)
        left = sum(found["left"].values())
        if found["added"]:
            self._pause = _SOONEST
        if found["owned"]:
            self._gone = None
        if not left or found["owned"] or not self._is_gone(found["run"]):
            return left, ""
        if found["left"]["Killed"] and time.monotonic() - (self._gone or 0.0) < _PARTING:
            self._pause = _SOONEST
            return left, ""
        # Asked anew, since it may have ended with all done. And what was killed is not for the next job to go on with: that would be
        # for ever, if it takes longer than a walltime.
        left = sum(self._workspaces.carry_out(self._queue, alone=True)["left"].values())
        self._gone = None
        return left, self._workspaces.drain(self._queue, self._wishes) if left else ""

    def _is_gone(self, token: str) -> bool:
        """Whether the last job was looked for just now, and neither waits nor runs."""
        now = time.monotonic()
        if now - self._asked < self._pause:
            return False
        self._asked, self._pause = now, min(2 * self._pause, _LATEST)
        if token and self._workspaces.drained(token):
            self._gone = None
        elif self._gone is None:
            self._gone = now
        return self._gone is not None


def save(workspaces: Workspaces, files: Mapping[str, str]) -> str:
    """Copy files from the site, all of them or none; returns what went wrong.

    Parameters
    ----------
    files : mapping
        Paths at the site, and absolute ones here.
    """
    now = ""
    try:
        with contextlib.ExitStack() as writing:  # each is renamed when all are here
            for source, target in files.items():
                now = f"{source} to {target}"
                workspaces.fetch(source, writing.enter_context(whole(_replaceable(target))))
    except (OSError, QueueError) as exc:
        return f"cannot copy {now}: {exc.what if isinstance(exc, QueueError) else exc.strerror}"
    return ""


def _replaceable(target: str) -> Path:
    """The file that is to be written, where links lead; raises `OSError` when what is there is none."""
    place = Path(os.path.realpath(target))
    if place.exists() and not place.is_file():
        raise OSError(0, "what is there is no regular file", target)
    return place


def _pieces(script: str, inputs: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """The lines of requests that fill a workspace, each with its size; the script is the last."""
    for name, path in inputs.items():
        try:
            with opened(path) as file:
                yield from _of_file(f"input/{name}", file)
        except OSError as exc:
            raise Refused(f"the input {path} cannot be read: {exc.strerror}") from exc
    yield _piece("job.sh", 0, script.encode(errors="surrogateescape"), SCRIPT_MODE)


def _of_file(name: str, file: IO[bytes]) -> Iterator[tuple[int, str]]:
    data, offset = file.read(PIECE), 0
    while True:
        after = file.read(PIECE) if len(data) == PIECE else b""
        yield _piece(name, offset, data, None if after else INPUT_MODE)
        if not after:
            return
        data, offset = after, offset + len(data)


def _piece(name: str, offset: int, data: bytes, mode: int | None) -> tuple[int, str]:
    piece = {"name": name, "offset": offset, "data": base64.b64encode(data).decode(), "mode": mode}
    return len(data), json.dumps(piece) + "\n"


def _up_to(most: int, first: tuple[int, str], pieces: Iterator[tuple[int, str]]) -> Iterator[str]:
    """Lines until there are so many bytes of files in them."""
    size, line = first
    yield line
    while size < most and (found := next(pieces, None)):
        size += found[0]
        yield found[1]
