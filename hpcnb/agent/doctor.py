"""The examination of a site: one look after the other, each with its deadline, and what depends on one that failed is skipped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from hpcnb.agent import checks, places
from hpcnb.agent.checks import Case
from hpcnb.agent.sites import Site
from hpcnb.errors import HPCError, SiteError
from hpcnb.model import ClusterSpec
from hpcnb.site.finding import Finding, Verdict, failed
from hpcnb.site.shell import Ask, Prompt

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing to look at.

    Parameters
    ----------
    name : str
        In a user's words.
    look : coroutine function
        Gives what it finds; an error is a failure.
    deadline : float
        Seconds, without the time in which the user is asked.
    lacks : callable or None
        Why it cannot be looked at; empty where it can. None: it always can.
    far : bool
        Only of another machine.
    """

    name: str
    look: Callable[[Case], Awaitable[Finding]]
    deadline: float
    lacks: Callable[[Case], str] | None = None
    far: bool = False


def _place(case: Case) -> str:
    return "" if case.known else "the configuration does not lead there"


def _connection(case: Case) -> str:
    return "" if case.connected else "there is no connection"


def _python(case: Case) -> str:
    return _connection(case) or ("" if case.found else "the Python there has not answered")


def _batch(case: Case) -> str:
    return _connection(case) or ("" if case.answers else "the batch system has not answered")


CHECKS = (
    Check(name="entry", look=checks.entry, deadline=10.0),
    Check(name="login", look=checks.login, deadline=90.0, lacks=_place),
    Check(name="login shell", look=checks.login_shell, deadline=30.0, lacks=_connection),
    Check(name="Python", look=checks.python, deadline=70.0, lacks=_connection),
    Check(name="clock", look=checks.clock, deadline=5.0, lacks=_python, far=True),
    Check(name="home", look=checks.home, deadline=90.0, lacks=_python),
    Check(name="batch system", look=checks.batch, deadline=70.0, lacks=_connection),
    Check(name="default job", look=checks.job, deadline=70.0, lacks=_batch),
    Check(name="routes", look=checks.routes, deadline=40.0, lacks=_connection, far=True),
)
"""In this order: each says more of what the one before has opened."""


class _Patience:
    """A deadline that does not pass while the user is asked."""

    def __init__(self, case: Case, ask: Ask, seconds: float) -> None:
        self._case = case
        self._ask = ask
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def ask(self, prompt: Prompt) -> str:
        if prompt.kind == "notice":
            return await self._ask(prompt)
        loop = asyncio.get_running_loop()
        began, at = loop.time(), self._timeout.when()
        self._timeout.reschedule(None)
        try:
            return await self._ask(prompt)
        finally:
            took = loop.time() - began
            self._case.asked += took
            self._timeout.reschedule(None if at is None else at + took)

    async def wait(self, look: Awaitable[Finding]) -> Finding:
        try:
            async with self._timeout:
                return await look
        except TimeoutError as exc:
            raise SiteError(
                f"no answer within {self._seconds:.0f} s" if self._timeout.expired() else str(exc),
                remedy="The machine, or the file system of your home there, may hang: try it by hand with ssh.",
            ) from exc


async def examine(
    site: Site, spec: ClusterSpec, ask: Ask, *, all_checks: Sequence[Check] = CHECKS
) -> AsyncGenerator[Finding]:
    """Look at everything there is to look at, and tell each thing as soon as it is known."""
    case = Case(site=site, spec=spec, ask=ask)
    for check in all_checks:
        if check.far and not site.config.host:
            continue
        if why := check.lacks(case) if check.lacks else "":
            yield Finding(name=check.name, verdict=Verdict.SKIPPED, text=f"not looked at: {why}")
        else:
            yield await _look(check, case, ask)


async def _look(check: Check, case: Case, ask: Ask) -> Finding:
    began, asked = time.monotonic(), case.asked
    patience = _Patience(case, ask, check.deadline)
    case.ask = patience.ask
    try:
        found = await patience.wait(check.look(case))
    except HPCError as exc:
        found = failed(exc, site=case.site.name)
    except Exception as exc:
        if not isinstance(exc, OSError):
            log.exception("site %s: %s could not be examined", case.site.name, check.name)
        found = Finding(
            verdict=Verdict.FAILED,
            text=f"{type(exc).__name__}: {exc}",
            remedy="" if isinstance(exc, OSError) else f"That is a fault of ours; details are in {places.agent_log()}.",
        )
    seconds = time.monotonic() - began - (case.asked - asked)
    return replace(found, name=check.name, seconds=round(max(0.0, seconds), 3))
