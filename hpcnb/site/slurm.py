"""Slurm as a batch system: ask it by its own commands, believe only answers that prove themselves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from hpcnb.errors import SubmissionRejected
from hpcnb.model import Ending, JobState, JobStatus, Reason, Resources
from hpcnb.site import slurm_answers as answers
from hpcnb.site.batch import BatchUnknown, JobRequest, Limits, Pace, ask
from hpcnb.site.shell import Completed, Shell
from hpcnb.site.slurm_answers import SEPARATOR
from hpcnb.site.slurm_partitions import COLUMNS, Partition, impossible, partitions
from hpcnb.site.slurm_refusals import Refusal, complaint, refusal, remedy
from hpcnb.site.slurm_request import sbatch_argv

_KEPT = (
    *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "KRB5CCNAME"),
    *("SLURM_CONF", "SBATCH_ACCOUNT"),
)

CLEAN = "umask 077; exec env -i " + " ".join(f'${{{n}:+"{n}=${n}"}}' for n in _KEPT) + ' "$@"'
"""Runs a command of Slurm in a small environment that the job then inherits.

Else the secrets of a notebook server would travel into the job, `SQUEUE_FORMAT` and its like would change
answers, and the `SLURM_…` variables of a notebook that itself runs in a job would change the request.
"""

_EACH = 'for job; do scontrol --oneliner show job "$job"; done'
_ACCOUNTS = 'exec sacctmgr --noheader --parsable2 show associations user="$(id -un)" format=account'
_DEFAULT = 'exec sacctmgr --noheader --parsable2 show user "$(id -un)" format=defaultaccount'
_ALIVE = "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING"
_CANCELLER = """sacct -X -n -P -j "$1" -o State | sed -n 's/^CANCELLED by \\([0-9][0-9]*\\)$/\\1/p' | while read -r uid
do id -nu "$uid" 2>/dev/null || echo "user $uid"; done"""
_LOGIN_PATH = """printf '\\037%s\\037' "$PATH" """

_ID = re.compile(r"[0-9]{1,18}")
_NO_SUCH_JOB = "Invalid job id"
_HARMLESS = re.compile("invalid job id|already completing or completed", re.IGNORECASE)

T = TypeVar("T")


class Slurm:
    """The batch system Slurm; see `hpcnb.site.batch.Batch`.

    Parameters
    ----------
    shell : Shell
    site : str
        What errors call the site.
    """

    kind = "slurm"
    # That a job has started or ended, the pilot tells sooner than any question.
    pace = Pace(soonest=1.0, steps=((60.0, 5.0),), calm=30.0)

    settle = 2.0
    """Seconds between two looks for a job whose submission got no answer."""

    def __init__(self, shell: Shell, site: str) -> None:
        self._shell = shell
        self._site = site
        self._path: str | None = None  # of a login shell, once it was needed
        self._seen: dict[str, JobStatus] = {}  # as last heard, of the jobs that were asked for
        self._private: bool | None = None

    async def version(self) -> str:
        done = await self._run(["scontrol", "show", "config"])
        if done.returncode and refusal(done.returncode, done.err) is Refusal.MISSING:
            raise await self._rejected(Refusal.MISSING, done)
        return self._read(done, answers.version)

    async def submit(self, request: JobRequest) -> str:
        argv = sbatch_argv(request, site=self._site)
        await self._check_limits(request)
        try:
            # `timeout`, so that nothing is submitted behind our back once we have stopped waiting.
            done = await self._run(["timeout", "-k", "5", "50", *argv], wait=60)
        except BatchUnknown as exc:
            return await self._adopt(request, str(exc))
        if not done.returncode:
            return answers.submitted(done.out) or await self._adopt(request, f"sbatch said {done.out[:200]!r}")
        why = refusal(done.returncode, done.err)
        if why is Refusal.UNHEARD:
            return await self._adopt(request, done.err)
        if why is Refusal.UNCLEAR and (job_id := await self._look(request)):
            return job_id
        raise await self._rejected(why, done)

    async def starts(self, request: JobRequest) -> float | None:
        argv = sbatch_argv(request, site=self._site)
        await self._check_limits(request)
        # POSIX time, and no script of ours, which may not be there yet.
        asked = ["SLURM_TIME_FORMAT=%s", "timeout", "-k", "5", "25", *argv[:-1], "--test-only", "--wrap=true"]
        done = await self._run(asked)
        if not done.returncode:
            return answers.start(done.err)
        why = refusal(done.returncode, done.err)
        if why is Refusal.UNHEARD:
            raise self._unknown(done)
        raise await self._rejected(why, done)

    async def room(self, resources: Resources) -> tuple[int | None, int | None]:
        names = resources.partition.split(",") if resources.partition else []
        found = [p for p in await self._partitions() if (p.name in names if names else p.default)]
        cores = [p.cores for p in found if p.cores]
        return min(cores, default=None), max((p.nodes for p in found), default=None)

    async def find(self, token: str) -> list[str]:
        done = await self._squeue("--me", "--states=all", columns=answers.TOKENS)
        return self._read(done, answers.carriers, token)

    async def list(self, job_ids: Collection[str]) -> dict[str, JobStatus]:
        if not job_ids:
            return {}
        queue = self._queue_of(ids := _checked(job_ids))
        found = await (self._in_queue(ids, queue) if queue else self._alone(ids))
        self._seen = {i: found.get(i) or self._seen[i] for i in ids if i in found or i in self._seen}
        return found

    def _queue_of(self, job_ids: Sequence[str]) -> Collection[str]:
        """The partitions of some jobs, if one of them waits: then all that wait there are asked for with it."""
        known = [self._seen[i] for i in job_ids if i in self._seen]
        if len(known) < len(job_ids) or all(job.state is not JobState.PENDING for job in known):
            return ()
        return {name for job in known for name in job.partition.split(",")}

    async def _alone(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        done = await self._squeue("--states=all", f"--jobs={','.join(job_ids)}", columns=answers.JOBS)
        # Asked for one job alone that it has forgotten, squeue fails: an answer, unlike its other failures.
        if done.returncode and _NO_SUCH_JOB in done.err:
            return await self._remembered(job_ids)
        found = self._read(done, answers.jobs, job_ids)
        if over := [i for i, status in found.items() if status.state is JobState.ENDED]:
            endings = await self._endings(over)
            found |= {i: replace(found[i], ending=how) for i, how in endings.items() if how and i in found}
        return found | await self._remembered([i for i in job_ids if i not in found])

    async def _in_queue(self, job_ids: Sequence[str], queue: Collection[str]) -> dict[str, JobStatus]:
        """The same with the place of those that wait, still by one question."""
        private = await self._is_private()
        done = await self._squeue(_ALIVE, f"--partition={','.join(sorted(queue))}", columns=answers.JOBS)
        found = self._read(done, answers.jobs, job_ids)
        found = {i: status for i, status in found.items() if status.state is not JobState.ENDED}
        if private:
            found = {i: replace(status, hidden=True) for i, status in found.items()}
        elif private is False:
            for i, (ahead, smaller) in self._read(done, answers.places, found).items():
                found[i] = replace(found[i], position=ahead + 1, smaller=smaller)
        return found | await self._missing([i for i in job_ids if i not in found])

    async def _missing(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Jobs that are no longer in the queue where they were: they have ended, or were moved to another partition."""
        if not job_ids:
            return {}
        endings = await self._endings(job_ids)
        for job_id in endings:
            del self._seen[job_id]  # where it is now, the next question tells
        over = {i: how for i, how in endings.items() if how}
        found = {i: JobStatus(job_id=i, state=JobState.ENDED, ending=how) for i, how in over.items()}
        return found | await self._remembered([i for i in job_ids if i not in endings])

    async def _is_private(self) -> bool | None:
        """Whether the site hides jobs from other users; None if it does not say."""
        if self._private is None:
            try:
                self._private = self._read(await self._run(["scontrol", "show", "config"]), answers.hides_jobs)
            except BatchUnknown:
                pass  # the states are known, and matter more
        return self._private

    async def limits(self) -> Limits:
        known, accounts, default = await asyncio.gather(self._partitions(), self._accounts(), self._accounts(_DEFAULT))
        return Limits(
            partitions=tuple(known),
            accounts=tuple(accounts),
            default_account=default[0] if len(default) == 1 else "",
        )

    async def canceller(self, job_id: str) -> str:
        done = await self._run(["sh", "-c", _CANCELLER, "sh", *_checked([job_id])])
        return done.out.strip()[:100]

    async def cancel(self, job_ids: Collection[str]) -> None:
        if not job_ids:
            return
        done = await self._run(["scancel", *_checked(job_ids)])
        if done.returncode and not _HARMLESS.search(done.err):
            raise self._unknown(done)

    def step(self, job_id: str, argv: Sequence[str]) -> Sequence[str]:
        """The command that runs another on the first node of a job; what it writes comes unbuffered and unchanged."""
        # Without --unbuffered, what is no whole line would be kept back.
        one = ["--nodes=1", "--ntasks=1", "--relative=0", "--cpus-per-task=1", "--mem=0", "--unbuffered", "--quiet"]
        return self._clean(["srun", "--overlap", f"--jobid={_checked([job_id])[0]}", *one, *argv])

    async def _check_limits(self, request: JobRequest) -> None:
        what, remedy_ = impossible(request.resources, await self._partitions())
        if what:
            raise SubmissionRejected(what, where=f"site {self._site}", remedy=remedy_)

    async def _partitions(self) -> Sequence[Partition]:
        try:
            done = await self._run(["sinfo", "--format=" + SEPARATOR.join(COLUMNS)])
            return self._read(done, partitions)
        except BatchUnknown:
            return ()  # what is not known limits nothing, and Slurm itself will judge

    async def _adopt(self, request: JobRequest, why: str) -> str:
        job_id = await self._look(request)
        if job_id is None:
            raise BatchUnknown(
                f"site {self._site}: sbatch gave no answer ({why.strip()}); no job of this run is known yet"
            )
        return job_id

    async def _look(self, request: JobRequest) -> str | None:
        """Look twice for a job that may have been submitted: the first answer can come too early."""
        for pause in (0.0, self.settle):
            await asyncio.sleep(pause)
            if ids := await self.find(request.token):
                if len(ids) > 1:
                    raise BatchUnknown(
                        f"site {self._site}: several jobs carry the run {request.token}: {', '.join(ids)}"
                    )
                return ids[0]
        return None

    async def _rejected(self, why: Refusal, done: Completed) -> SubmissionRejected:
        known = ""
        if why is Refusal.PARTITION:
            known = ", ".join(map(str, await self._partitions()))
        elif why in (Refusal.ACCOUNT, Refusal.QOS, Refusal.POLICY):
            known = ", ".join(await self._accounts())
        what = f"sbatch refused the request: {complaint(done.err)}"
        if why is Refusal.MISSING:
            what = f"there is no sbatch on {self._shell.name}"
        return SubmissionRejected(
            what,
            where=f"site {self._site}",
            evidence=done.err.strip()[-2000:],
            remedy=remedy(why, site=self._site, known=known),
        )

    async def _accounts(self, question: str = _ACCOUNTS) -> Sequence[str]:
        try:
            done = await self._run(["sh", "-c", question])
        except BatchUnknown:
            return ()
        return () if done.returncode else sorted(set(done.out.split()))

    async def _endings(self, job_ids: Sequence[str]) -> dict[str, Ending | None]:
        done = await self._run(["sh", "-c", _EACH, "sh", *job_ids])
        if done.returncode and _NO_SUCH_JOB not in done.err:
            raise self._unknown(done)
        return answers.records(done.out)

    async def _remembered(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Jobs that the controller has forgotten, which it does minutes after their end."""
        found: dict[str, JobStatus] = {}
        if not job_ids:
            return found
        try:
            done = await self._run(["sacct", "-X", "-n", "-P", "-j", ",".join(job_ids), "-o", answers.HISTORY])
            found = answers.history(done.out)
        except (BatchUnknown, ValueError):
            pass  # that they have ended is certain; how, then nobody can tell
        return {job_id: found.get(job_id) or self._forgotten(job_id) for job_id in job_ids}

    def _forgotten(self, job_id: str) -> JobStatus:
        message = f"the batch job is no longer known to Slurm at site {self._site}; how it ended is not recorded there"
        ending = Ending(reason=Reason.FAILED, job_id=job_id, message=message)
        return JobStatus(job_id=job_id, state=JobState.ENDED, ending=ending)

    async def _squeue(self, *options: str, columns: Sequence[str]) -> Completed:
        # POSIX time, since Slurm's own form names no time zone.
        return await self._run(["SLURM_TIME_FORMAT=%s", "squeue", *options, "--format=" + SEPARATOR.join(columns)])

    def _read(self, done: Completed, parse: Callable[..., T], *more: object) -> T:
        if done.returncode:
            raise self._unknown(done)
        try:
            return parse(done.out, *more)
        except ValueError as exc:
            raise BatchUnknown(f"site {self._site}: Slurm's answer makes no sense: {exc}") from exc

    def _unknown(self, done: Completed) -> BatchUnknown:
        said = done.err.strip()[-500:] or "nothing"
        return BatchUnknown(f"site {self._site}: Slurm's command failed ({done.returncode}) and said {said}")

    async def _run(self, argv: Sequence[str], *, wait: float = 30.0) -> Completed:
        done = await ask(self._shell, self._site, self._clean(argv), timeout=wait)
        if done.returncode == 127 and self._path is None:
            # A command over SSH gets no login shell, and at some sites only that knows where Slurm is.
            self._path = await self._login_path()
            done = await ask(self._shell, self._site, self._clean(argv), timeout=wait)
        return done

    def _clean(self, argv: Sequence[str]) -> Sequence[str]:
        path = [f"PATH={self._path}"] if self._path else []
        return ["sh", "-c", CLEAN, "sh", *path, *argv]

    async def _login_path(self) -> str:
        done = await ask(self._shell, self._site, ["sh", "-l", "-c", _LOGIN_PATH])
        found = re.search("\x1f([^\x1f\n]+)\x1f", done.out)
        return found[1] if found else ""


def _checked(job_ids: Collection[str]) -> Sequence[str]:
    if odd := [job_id for job_id in job_ids if not _ID.fullmatch(job_id)]:
        raise ValueError(f"not the id of a Slurm job: {odd[0]!r}")
    return sorted(job_ids)
