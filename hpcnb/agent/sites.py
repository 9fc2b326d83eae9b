"""The sites in use: for each one connection, one environment, one batch system, one question to it at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from hpcnb.config import SiteConfig
from hpcnb.errors import SiteError
from hpcnb.model import ClusterSpec, JobState, JobStatus, Versions
from hpcnb.site import bootstrap
from hpcnb.site.batch import Batch
from hpcnb.site.environment import Environment, Probe, judge, probe, versions
from hpcnb.site.lasting import LastingShell
from hpcnb.site.local import LocalShell
from hpcnb.site.process import Process
from hpcnb.site.shell import Ask, Shell
from hpcnb.site.slurm import Slurm

log = logging.getLogger(__name__)

SLOWEST = 4.0
"""Seconds until the batch system is asked again after a fault of ours."""
HURRY = 5.0
"""Seconds after our own doing for which a batch system is asked as soon as it may be."""
EXPIRY_WARNING = 3600.0
"""Seconds before the end of the login's certificate at which it is announced."""

Heard = Callable[[JobStatus], None]


def _ignore(site: Site) -> None:
    """Stand in for a callback that nobody gave."""


class Site:
    """One site of the configuration, connected when first needed.

    Parameters
    ----------
    config : SiteConfig
    noticed : callable, optional
        Called with the site whenever its `notices` change.

    Attributes
    ----------
    notices : dict of str to str
        What its user should do something about; see `ClusterStatus.notices`.
    """

    def __init__(self, config: SiteConfig, noticed: Callable[[Site], None] = _ignore) -> None:
        self.config = config
        self.name = config.name
        self._probes: dict[str, tuple[Versions, Probe]] = {}  # by interpreter, each with what it suits
        self.zip_path = ""
        self.warnings: list[str] = []
        self.notices: dict[str, str] = {}
        self._noticed = noticed
        self._expiry: asyncio.TimerHandle | None = None
        self.shell = LastingShell(config.name, self._reach, refused=self._on_login)
        self.batch = _batch(config, self.shell)
        self._opening = asyncio.Lock()
        self._watched: dict[str, Heard] = {}
        self._asker: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._happened = self._hurried = self._asked = -math.inf

    @property
    def ssh_config(self) -> Path | None:
        """The OpenSSH configuration that counts in place of the user's, if there is one."""
        return Path(self.config.ssh_config).expanduser() if self.config.ssh_config else None

    async def connect(self, ask: Ask) -> None:
        """Connect, unless connected: enough to look after jobs that exist."""
        await self.shell.connect(ask)

    def environment(self, spec: ClusterSpec) -> Environment:
        """How the Python of a cluster is entered; on this machine it is the client's own, unless one is configured."""
        return Environment(python=spec.python or self.config.python, setup=self.config.setup)

    async def open(self, spec: ClusterSpec, ask: Ask) -> Probe:
        """Connect, look at the Python there, and ship the code unless it is there; what was found is kept.

        Raises
        ------
        SiteError
            The site cannot be reached, or its Python cannot be used.
        """
        await self.connect(ask)
        environment, client = self.environment(spec), spec.client or versions()
        async with self._opening:
            suits, found = self._probes.get(environment.python, (None, None))
            if found is None or suits != client:  # both ends may have been upgraded since
                found = await probe(self.shell, environment, site=self.name, home=self.config.home)
                self.warnings = judge(found, client, site=self.name)
                self._probes[environment.python] = client, found
            # Each time: a scratch file system may have been purged since.
            self.zip_path = await bootstrap.ship_code(self.shell, found.home, site=self.name)
        return found

    async def _reach(self, ask: Ask) -> Shell:
        if not self.config.host:
            return LocalShell()
        from hpcnb.site.ssh import SSHShell  # paramiko is dear, and the embedded default does without

        return await SSHShell.connect(
            self.config.host, ask=ask, config_file=self.ssh_config, timeout=self.config.connect_timeout
        )

    def _on_login(self, refusal: SiteError | None) -> None:
        again = f"`%hpc login {self.name}`"
        text = f"needs you ({refusal.what}): {again} connects again" if refusal else ""
        self._notice("login", text)
        if refusal is None:
            self._watch_expiry()

    def _watch_expiry(self) -> None:
        """Announce the end of the login's certificate while it can still be renewed without hurry."""
        if self._expiry:
            self._expiry.cancel()
        self._notice("certificate", "")
        if ends := self.shell.login_ends:
            at = time.strftime("%H:%M", time.localtime(ends))
            text = f"the certificate for {self.name} expires at {at}: renew it, or a lost connection stays lost"
            wait = max(0.0, ends - EXPIRY_WARNING - time.time())
            self._expiry = asyncio.get_running_loop().call_later(wait, self._notice, "certificate", text)

    def _notice(self, topic: str, text: str) -> None:
        known = {other: words for other, words in self.notices.items() if other != topic}
        before, self.notices = self.notices, known | ({topic: text} if text else {})
        if self.notices != before:
            self._noticed(self)

    def watch(self, job_id: str, heard: Heard) -> None:
        """Call `heard` with every status of a job, until it has ended."""
        self._watched[job_id] = heard
        self.stir()
        if self._asker is None or self._asker.done():
            self._asker = asyncio.create_task(self._ask_batch(), name=f"batch system of {self.name}")
            self._asker.add_done_callback(self._on_asked)

    def _on_asked(self, asker: asyncio.Task[None]) -> None:
        """See to it that somebody asks as long as a job is watched: else its end would never be heard of."""
        if self._watched:
            failed = None if asker.cancelled() else asker.exception()
            log.error("site %s: the batch system is no longer asked; it is asked again", self.name, exc_info=failed)
            asyncio.get_running_loop().call_later(SLOWEST, self._go_on)

    def _go_on(self) -> None:
        for job_id, heard in list(self._watched.items()):
            self.watch(job_id, heard)

    def hurry(self) -> None:
        """Ask soon: by our own doing a job is about to end."""
        self._hurried = _now()
        self.stir()

    def stir(self) -> None:
        """Something has happened to a job: for a while the batch system is asked more often, as its pace allows."""
        self._happened = _now()
        self._news.set()

    async def _ask_batch(self) -> None:
        last: dict[str, JobState] = {}
        while self._watched:
            await self._wait_for_turn()
            answers = await self._answers(list(self._watched))
            self._asked = _now()
            for status in answers.values():
                self._pass_on(status)
            if JobState.ENDED in (status.state for status in answers.values()):
                self._hurried = -math.inf  # what we hurried for has come
            states = last | {i: s.state for i, s in answers.items()}
            if states != last:
                self._happened = self._asked
            last = {i: state for i, state in states.items() if i in self._watched}

    async def _wait_for_turn(self) -> None:
        """Wait for as long as the batch system is to be left alone; what happens meanwhile may shorten that."""
        while (left := self._asked + self._pause() - _now()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    def _pause(self) -> float:
        now, pace = _now(), self.batch.pace
        return pace.soonest if now - self._hurried < HURRY else pace.pause(now - self._happened)

    def _pass_on(self, status: JobStatus) -> None:
        heard = self._watched.get(status.job_id)
        if status.state is JobState.ENDED:
            self._watched.pop(status.job_id, None)
        try:
            if heard:
                heard(status)
        except Exception:  # a fault of ours in one cluster must not keep the others from hearing of their jobs
            log.exception("site %s: the news of job %s got lost", self.name, status.job_id)

    async def _answers(self, job_ids: list[str]) -> dict[str, JobStatus]:
        try:
            return await self.batch.list(job_ids)
        except Exception as exc:  # the question is put again; that a job is gone is only ever said by a valid answer
            log.warning("site %s: the batch system gave no answer: %s: %s", self.name, type(exc).__name__, exc)
            return {i: JobStatus(job_id=i, state=JobState.UNKNOWN) for i in job_ids}

    async def close(self) -> None:
        """Stop asking and end the connection; jobs go on."""
        self._watched.clear()
        if self._expiry:
            self._expiry.cancel()
        if self._asker:
            self._asker.cancel()
            await asyncio.gather(self._asker, return_exceptions=True)
        await self.shell.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _batch(config: SiteConfig, shell: Shell) -> Batch:
    if config.batch == "slurm":
        return Slurm(shell, config.name)
    return Process(shell, config.name, home=config.home)
