"""Sees to a drop box: fills a workspace at the site for each job, and collects what has become of those that are finished."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpcnb.dropbox.box import Box
from hpcnb.dropbox.job import Job, Refused, brief, ending, kept_apart, placed, values
from hpcnb.dropbox.site import Drainer, Workspaces, save
from hpcnb.dropbox.template import Unfit, rendered
from hpcnb.errors import HPCError, QueueError
from hpcnb.pilot.queue.lease import Fenced
from hpcnb.views.visible import visible

AT_ONCE = 4
"""Jobs that are staged, or collected, at the same time: what that takes is mostly the way there and back, and a login node allows few."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts while the site cannot be reached."""


class Submitter:
    """The half that sees to the directory.

    Parameters
    ----------
    box : Box
    templates : Path
        The folder of ``NAME.template``.
    workspaces : Workspaces
    keep : bool
        Workspaces stay when their jobs are finished.
    say : callable
        Told what happens, a line each.
    """

    def __init__(
        self, box: Box, templates: Path, workspaces: Workspaces, *, keep: bool, say: Callable[[str], None]
    ) -> None:
        self._box = box
        self._templates = templates
        self._workspaces = workspaces
        self._keep = keep
        self._say = say
        self._troubles: dict[tuple[str, str], str] = {}

    def round(self) -> int:
        """Do all that can be done now; returns how many jobs are not finished."""
        self._box.confirm()
        for name, kind in self._box.interrupted():
            self._see_to(name, self._box.recover, kind, self._tidy)
        self._see_to_each((name, self._submit) for name in self._box.jobs() if self._box.settled(name))
        submitted = {name: job for name, job in self._box.submitted().items() if self._is_ours(job)}
        finished = self._workspaces.finished(job["hpc"]["workspace"] for job in submitted.values())
        ended = ((name, self._collect, job) for name, job in submitted.items() if job["hpc"]["workspace"] in finished)
        return len(submitted) - self._see_to_each(ended) + len(self._box.jobs())

    def _see_to_each(self, calls: Iterable[tuple[Any, ...]]) -> int:
        """Do something about several jobs, a few at a time; for how many that could be done."""
        with ThreadPoolExecutor(AT_ONCE, "dropbox") as pool:
            return sum(pool.map(lambda call: self._see_to(*call), calls))

    def _see_to(self, name: str, work: Callable[..., None], *arguments: Any) -> bool:
        """Do something about one job; whether that could be done. What is wrong with one is told, and holds up no other."""
        try:
            work(name, *arguments)
        except (OSError, QueueError, Refused) as exc:
            self._box.confirm()  # else it is the one who owns the directory now that takes things away
            if self._troubles.get((name, work.__name__)) != str(exc):
                self._tell(name, str(exc))
            self._troubles[name, work.__name__] = str(exc)
            return False
        self._troubles.pop((name, work.__name__), None)
        return True

    def _submit(self, name: str) -> None:
        workspace, content = "", {}
        try:
            data, number = self._box.read(name), self._box.number(name)
            job = Job.parse(data)
            workspace, content = self._workspaces.of(number), job.content
            self._workspaces.stage(workspace, self._script(job, workspace), self._inputs(job))
        except FileNotFoundError:
            return  # its owner has taken it back
        except Refused as exc:
            if workspace:
                self._workspaces.remove(workspace)
            elif not self._box.settled(name, unfit=True):
                return
            self._refuse(name, content or exc.content, str(exc))
        else:
            if self._box.settled(name):  # else it is another one by now
                self._box.replace(name, "submitted", {**content, "hpc": placed(job, workspace)})
                self._tell(name, f"submitted, in {workspace}")

    def _refuse(self, name: str, content: dict[str, Any], why: str) -> None:
        content = {key: value for key, value in content.items() if key != "hpc"}
        self._box.replace(name, "refused", {**content, "job": ending(why)})
        self._tell(name, f"refused: {why}")

    def _script(self, job: Job, workspace: str) -> str:
        path = self._templates / f"{job.script}.template"
        try:
            template = path.read_text(encoding="utf-8", errors="surrogateescape")
            return rendered(template, values(job, workspace, self._workspaces.settings))
        except FileNotFoundError:
            there = ", ".join(sorted(one.stem for one in self._templates.glob("*.template"))) or "none"
            why = f"there is no template {job.script!r} in {self._templates}; there are: {there}"
        except OSError as exc:
            why = f"the template {path} cannot be read: {exc.strerror}"
        except Unfit as exc:
            why = str(exc)
        raise Refused(why, job.content)

    def _inputs(self, job: Job) -> dict[str, str]:
        return {name: job.inputs[key] for key, name in kept_apart(job.inputs).items()}

    def _is_ours(self, job: dict[str, Any]) -> bool:
        """Whether a submitted job's workspace is one of those that we see to; who has filled it makes no difference."""
        hpc = job.get("hpc")
        return isinstance(hpc, dict) and self._workspaces.has(hpc.get("workspace"))

    def _collect(self, name: str, job: dict[str, Any]) -> None:
        result = self._workspaces.result(job["hpc"]["workspace"])
        if result["rc"] is None:
            error = "the job has left no return code: its workspace has gone, or what was in it"
        else:
            error = "" if result["rc"] else self._saved(job)
        self._box.end(name, {**job, "job": ending(error, result)}, self._tidy)
        self._tell(name, f"finished: {error or result['rc']}")

    def _saved(self, job: dict[str, Any]) -> str:
        """Copy the outputs of a job that succeeded to where they belong; returns what went wrong."""
        inside, outside = job["hpc"].get("output_map") or {}, job.get("output_map") or {}
        root = job["hpc"]["workspace"]
        if not isinstance(inside, dict) or not isinstance(outside, dict) or inside.keys() != outside.keys():
            return f"output_map says {brief(outside)}, hpc says {brief(inside)}"
        for source, target in [(inside[key], outside[key]) for key in outside]:
            if not isinstance(source, str) or not os.path.normpath(source).startswith(f"{root}/"):
                return f"the output {brief(source)} is not in the workspace {root}"
            if not isinstance(target, str) or not target.startswith("/"):
                return f"the output's place {brief(target)} is no absolute path"
        return save(self._workspaces, {inside[key]: outside[key] for key in outside})

    def _tidy(self, job: dict[str, Any]) -> None:
        if not self._keep and self._is_ours(job):
            try:
                self._workspaces.remove(job["hpc"]["workspace"])
            except QueueError as exc:  # the job is finished all the same
                self._say(str(exc))

    def _tell(self, name: str, what: str) -> None:
        self._say(f"{visible(name)}: {visible(what)}")


class Runner:
    """Does the rounds of a submitter, of a drainer, or of both, until it is interrupted.

    Parameters
    ----------
    box : Box or None
    submitter : Submitter or None
    drainer : Drainer or None
    say : callable
    """

    def __init__(
        self, box: Box | None, submitter: Submitter | None, drainer: Drainer | None, say: Callable[[str], None]
    ) -> None:
        self._box = box
        self._watch: Any = box.watch() if box else None
        self._submitter = submitter
        self._drainer = drainer
        self._say = say
        self._said = ""
        self._owning = False

    def run(self, period: float, *, until_idle: bool = False) -> None:
        """See to all of it, so many seconds apart; `until_idle`: until all jobs that are there are finished."""
        pause, left = period, 1
        try:
            while left or not until_idle:
                try:
                    left = self._round() if self._owns() else 1
                    pause = period
                except Fenced:
                    self._lost()
                except (HPCError, OSError) as exc:
                    self._once(str(exc))
                    pause = min(2 * pause, max(period, LONGEST_PAUSE))
                if left or not until_idle:
                    time.sleep(pause)  # nothing tells of a file in a directory that another machine may have written
        finally:
            if self._box:
                self._box.leave()

    def _owns(self) -> bool:
        """Whether there is no directory, or it is ours, by now at least."""
        if self._box and not self._owning:
            self._owning = self._box.own(self._watch)
            if not self._owning:
                self._once(f"another runner sees to the drop box: {_who(self._watch.owner())}; waiting")
        return self._owning or not self._box

    def _lost(self) -> None:
        """Somebody else sees to the directory since we were stopped."""
        self._owning = False
        if self._box:
            self._box.lose()

    def _round(self) -> int:
        left = self._submitter.round() if self._submitter else 0
        if self._drainer:
            waiting, job = self._drainer.round()
            left += waiting
            if job:
                self._say(f"job {job} carries them out")
        self._said = ""
        return left

    def _once(self, what: str) -> None:
        """Say what goes on for a while, once."""
        if what != self._said:
            self._said = what
            self._say(what)


def _who(owner: dict[str, Any] | None) -> str:
    return f"process {owner.get('pid')} on {owner.get('host')}" if owner else "it has just begun"
