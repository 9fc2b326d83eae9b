"""Plain processes as a batch system, for a machine without one: the same code here and over SSH."""

from __future__ import annotations

import functools
import importlib.resources
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from hpcnb.errors import SubmissionRejected
from hpcnb.model import Ending, JobState, JobStatus, Reason, Resources
from hpcnb.site.batch import BatchUnknown, JobRequest, Limits, Pace, ask
from hpcnb.site.shell import Completed, Shell

_NOT_YET = 5
"""Exit status of ``submit`` in `process.sh` that leaves open whether the job will start."""

_TOKEN = re.compile(r"[0-9a-f]{32}")


@functools.cache
def _text() -> str:
    return importlib.resources.files("hpcnb.site").joinpath("process.sh").read_text("utf-8")


def command(home: str, verb: str, *words: str) -> list[str]:
    """The command that does something with jobs; `home` as in `Process`."""
    return ["sh", "-c", _text(), "hpcnb-job", home, verb, *words]


def submission(home: str, request: JobRequest, verb: str = "submit") -> list[str]:
    """The command that submits a job, or, from inside of one, ``follow``: one that begins when that has ended."""
    words = (request.script, request.directory, request.log, str(request.resources.walltime))
    return command(home, verb, _text(), *([request.token] if verb == "submit" else []), *words)


class Process:
    """Jobs as supervised processes of one Linux machine; see `hpcnb.site.batch.Batch`.

    A job's id is its token, so that submitting twice is submitting once. It lives on without us, in a session of
    its own, and is ended at its walltime. Its cores and memory are not limited.

    Parameters
    ----------
    shell : Shell
    site : str
        What errors call the site.
    home : str
        Where our files go there; empty: ``$HPCNB_HOME`` of the site, or ``~/.hpcnb``.
    """

    kind = "process"
    # A look at a few files of our own.
    pace = Pace(soonest=0.25, steps=((2.0, 0.25), (8.0, 1.0)), calm=4.0)

    def __init__(self, shell: Shell, site: str, *, home: str = "") -> None:
        self._shell = shell
        self._site = site
        self._home = home

    async def version(self) -> str:
        await self.find("0" * 32)
        return "plain processes"

    async def submit(self, request: JobRequest) -> str:
        self._check(request)
        done = await self._run(submission(self._home, request))
        said = done.err.strip()[-2000:]
        if done.returncode < 0 or done.returncode == _NOT_YET:
            raise BatchUnknown(f"site {self._site}: whether the job has started could not be seen {said}")
        if done.returncode:
            what = f"{self._shell.name} could not start the job"
            raise self._rejected(what, "Mend what the lines above name; such a site is a Linux machine.", said)
        return request.token

    def _check(self, request: JobRequest) -> None:
        if what := _impossible(request):
            raise self._rejected(what, "Leave it out, or name a site that has Slurm.")

    async def starts(self, request: JobRequest) -> float | None:
        self._check(request)
        return time.time()

    async def room(self, resources: Resources) -> tuple[int | None, int | None]:
        done = await self._run(["nproc"])
        said = done.out.strip().rpartition("\n")[2]
        return (int(said) if said.isdecimal() else None), 1

    async def find(self, token: str) -> list[str]:
        return [
            line for line in self._lines(await self._run(self._command("find", *_checked([token])))) if line == token
        ]

    async def list(self, job_ids: Collection[str]) -> dict[str, JobStatus]:
        if not job_ids:
            return {}
        lines = self._lines(await self._run(self._command("list", *_checked(job_ids))))
        # What else is there, a chatty shell has said.
        rows = [row for row in map(str.split, lines) if row and row[0] in job_ids]
        try:
            found = {row[0]: _status(*row) for row in rows}
        except (LookupError, TypeError, ValueError) as exc:
            raise BatchUnknown(f"site {self._site}: an answer that makes no sense: {rows!r}") from exc
        if len(found) < len(set(job_ids)):
            raise BatchUnknown(f"site {self._site}: an answer that leaves out a job: {lines!r}")
        return found

    async def limits(self) -> Limits:
        return Limits()

    async def canceller(self, job_id: str) -> str:
        return ""  # nobody keeps account

    async def cancel(self, job_ids: Collection[str]) -> None:
        if job_ids:
            self._lines(await self._run(self._command("cancel", _text(), *_checked(job_ids))))

    def _lines(self, done: Completed) -> Sequence[str]:
        if done.returncode:
            raise BatchUnknown(f"site {self._site}: {done.err.strip()[-500:] or 'no answer'}")
        return done.out.split("\n")

    def _command(self, verb: str, *words: str) -> Sequence[str]:
        return command(self._home, verb, *words)

    async def _run(self, argv: Sequence[str]) -> Completed:
        return await ask(self._shell, self._site, argv)

    def _rejected(self, what: str, remedy: str, evidence: str = "") -> SubmissionRejected:
        return SubmissionRejected(what, where=f"site {self._site}", evidence=evidence, remedy=remedy)


def _impossible(request: JobRequest) -> str:
    resources = request.resources
    if resources.nodes != 1:
        return f"{resources.nodes} nodes of a site that is one machine"
    for word in ("partition", "account", "qos", "options"):
        if getattr(resources, word):
            return f"{word} means nothing at a site without a batch system"
    if not _TOKEN.fullmatch(request.token):
        return f"{request.token!r} is not a run id"
    for path in (request.script, request.directory, request.log):
        if not path.startswith("/") or "\0" in path:
            return f"{path!r} is not an absolute path"
    return "" if resources.walltime > 0 else f"a walltime of {resources.walltime} s"


def _checked(tokens: Collection[str]) -> Sequence[str]:
    if odd := [token for token in tokens if not _TOKEN.fullmatch(token)]:
        raise ValueError(f"not the id of a job: {odd[0]!r}")
    return sorted(tokens)


def _status(job_id: str, word: str, host: str = "", *more: str) -> JobStatus:
    nodes = (host,) if host else ()
    if word == "running":
        left = max(0, int(more[0]))
        return JobStatus(job_id=job_id, state=JobState.RUNNING, raw=word, nodes=nodes, time_left=left)
    if word == "completing":
        return JobStatus(job_id=job_id, state=JobState.RUNNING, raw=word, nodes=nodes)
    if word in ("elsewhere", "unreadable"):
        return JobStatus(job_id=job_id, state=JobState.UNKNOWN, raw=word, nodes=nodes)
    ending = replace(_ending(word, *more), job_id=job_id, node=host)
    return JobStatus(job_id=job_id, state=JobState.ENDED, raw=word, nodes=nodes, ending=ending)


_LOST = {
    "gone": (Reason.FAILED, "the job is not known on this machine, or was forgotten a month after its end"),
    "rebooted": (Reason.NODE_FAIL, "the machine was restarted while the job ran"),
    "vanished": (Reason.FAILED, "the job was killed together with its supervisor; how is not known"),
}


def _ending(word: str, status: str = "0", why: str = "") -> Ending:
    if word != "ended":
        reason, message = _LOST[word]
        return Ending(reason=reason, message=message)
    # As every shell has it, 128 and a signal's number.
    code, signal = (int(status), None) if int(status) <= 128 else (None, int(status) - 128)
    if why == "CANCELLED":
        return Ending(reason=Reason.CANCELLED, exit_code=code, signal=signal, message="the job was cancelled")
    if why == "TIMEOUT":
        return Ending(reason=Reason.TIMEOUT, exit_code=code, signal=signal, message="the walltime of the job ran out")
    if code == 0:
        return Ending(reason=Reason.COMPLETED, exit_code=0, message="the job ended by itself, without an error")
    memory = "; the system does that to a job when memory runs out" if signal == 9 else ""
    how = f"ended with exit status {code}" if code else f"was killed by signal {signal}{memory}"
    return Ending(reason=Reason.FAILED, exit_code=code, signal=signal, message=f"the job {how}")
