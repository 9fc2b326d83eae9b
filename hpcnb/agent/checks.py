"""What is looked at of a site before its first cluster, a function for each thing, by the very code that `up` uses."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcnb.agent import allocation
from hpcnb.agent.sites import EXPIRY_WARNING, Site
from hpcnb.errors import BatchError, ConnectionFailed, EnvironmentMismatch, SiteError
from hpcnb.model import ClusterSpec, Resources, Versions
from hpcnb.site import bootstrap
from hpcnb.site.authority import CLOCK_SKEW
from hpcnb.site.batch import BatchUnknown, Limits
from hpcnb.site.environment import (
    PACKAGES,
    VALUES,
    Probe,
    check_home,
    check_versions,
    clock_warning,
    probe,
    versions,
)
from hpcnb.site.finding import Finding, Verdict
from hpcnb.site.shell import Ask, Shell
from hpcnb.site.tcp import Forbidden
from hpcnb.units import format_duration

ROOM, FILES = 1 << 30, 10_000
"""Free bytes and inodes below which the home is worth a note."""
SHOWN = 5
"""Partitions, or accounts, that are named; the others are counted."""

_ODD = "a 'b' \"c\" $HOME `d` \\e\n*"
_SHELL = """printf '%s\\037%s\\037%s\\037%s\\037' "$1" "$(uname -n)" "$(uname -s -m)" "${SHELL##*/}" """
_SPACE = """export LC_ALL=C; stat -c 'mode %a' "$1"; df -Pk "$1" | tail -n 1; df -Pi "$1" | tail -n 1"""


@dataclass(kw_only=True)
class Case:
    """A site that is examined, and what one look leaves for the next.

    Parameters
    ----------
    site : Site
    spec : ClusterSpec
        What is asked of it by default.
    ask : Ask
    asked : float
        Seconds that questions have taken their user.
    known : bool
        It is clear where it is.
    connected : bool
    found : Probe or None
        What its Python has answered.
    ahead : tuple of float
        Between how many seconds its clock is ahead of ours.
    answers : bool
        Its batch system does.
    """

    site: Site
    spec: ClusterSpec
    ask: Ask
    asked: float = 0.0
    known: bool = False
    connected: bool = False
    found: Probe | None = None
    ahead: tuple[float, float] = (0.0, 0.0)
    answers: bool = False

    @property
    def shell(self) -> Shell:
        return self.site.shell

    @property
    def where(self) -> str:
        return f"site {self.site.name}"


def _ok(text: str) -> Finding:
    return Finding(verdict=Verdict.OK, text=text)


def _note(text: str, remedy: str = "", evidence: str = "") -> Finding:
    return Finding(verdict=Verdict.NOTE, text=text, remedy=remedy, evidence=evidence)


async def entry(case: Case) -> Finding:
    """What the configuration says of the site, and whom that means."""
    config = case.site.config
    place = "this machine"
    if config.host:
        from hpcnb.site.ssh import route_to  # paramiko is dear, and the embedded default does without

        *jumps, end = await route_to(config.host, case.site.ssh_config)
        port = f" port {end.port}" if end.port != 22 else ""
        place = f"{end.user}@{end.host}{port}" + "".join(f", through {jump.host}" for jump in jumps)
    case.known = True
    batch = {"slurm": "Slurm", "process": "plain processes"}[config.batch]
    return _ok(f"{place}, {batch}, {_wish(case.spec.resources)}")


def _wish(resources: Resources) -> str:
    """What a cluster asks for by default."""
    size = f"{resources.nodes} node{'s' * (resources.nodes != 1)} for {format_duration(resources.walltime)}"
    partition = f" in {resources.partition}" if resources.partition else ""
    return size + partition + (f" by account {resources.account}" if resources.account else "")


async def login(case: Case) -> Finding:
    """Whether we get in."""
    if not case.site.config.host:
        await case.site.connect(case.ask)
        case.connected = True
        return _ok("not needed: it is this machine")
    there, began, asked = case.shell.alive, time.monotonic(), case.asked
    await case.site.connect(case.ask)
    case.connected, took = True, time.monotonic() - began - (case.asked - asked)
    ends = case.shell.login_ends
    if ends is not None and ends - time.time() < EXPIRY_WARNING:
        at = time.strftime("%H:%M", time.localtime(ends))
        return _note(f"connected, but the certificate expires at {at}", "Renew it, or a lost connection stays lost.")
    if there:
        return _ok("connected already, by an earlier command")
    return _ok(f"connected in {took:.1f} s; its host key is on record")


async def login_shell(case: Case) -> Finding:
    """Whether it runs what we have it run, and what it says by itself."""
    began = time.monotonic()
    done = await case.shell.run(["sh", "-c", _SHELL, "sh", _ODD])
    took = time.monotonic() - began
    said = done.out.split("\037")
    if done.returncode or len(said) != 5 or said[0] != _ODD:
        raise SiteError(
            f"it does not run a plain command (exit status {done.returncode})",
            where=case.where,
            evidence=(done.err or done.out).strip()[-2000:],
            remedy="What it reads at its start (~/.bashrc, ~/.profile) may end it, or start something else.",
        )
    _, host, system, name, _ = said
    text = f"{name or 'sh'} on {host} ({system}) runs a command in {took:.2f} s"
    chatter = done.chatter.decode("utf-8", "replace").strip()
    if not chatter:
        return _ok(text)
    lines = len(chatter.splitlines())
    return _note(
        f"{text}, and prints {lines} line{'s' * (lines != 1)} by itself, which our commands bear",
        remedy="SFTP, scp and rsync may not: print only where somebody reads, as by `[ -t 1 ] && …` in ~/.bashrc.",
        evidence=chatter[:500],
    )


async def python(case: Case) -> Finding:
    """Whether its Python suits the one here."""
    site, ours = case.site, case.spec.client or versions()
    environment = site.environment(case.spec)
    began, before = time.monotonic(), time.time()
    case.found = found = await probe(case.shell, environment, site=site.name, home=site.config.home)
    took = time.monotonic() - began
    case.ahead = found.clock - before - took, found.clock - before
    there = _versions(Versions(python=found.python, packages=found.packages))
    try:
        check_versions(found, ours, site=site.name)
    except EnvironmentMismatch as exc:
        exc.evidence = exc.evidence or f"there: {there}\nhere:  {_versions(ours)}"
        raise
    text = f"{there} at {found.executable}, entered in {took:.1f} s"
    if not (differ := _differ(found.packages, ours.packages)):
        return _ok(f"{text}; all as here")
    words = (
        f"{name} is {found.packages.get(name) or 'missing'} there and {ours.packages[name]} here" for name in differ
    )
    pins = " ".join(f"{name}=={ours.packages[name]}" for name in differ)
    return _note(
        f"{text}; {', '.join(words)}",
        f"Most things work; for values made of these, at the site: {found.executable} -m pip install {pins}",
    )


def _differ(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """What there is here and there is not: of what values are made of, the major release counts."""
    ours = [name for name in PACKAGES if here.get(name) and there.get(name) != here[name]]
    majors = [name for name in VALUES if here.get(name) and _major(there.get(name, "")) != _major(here[name])]
    return ours + majors


def _major(version: str) -> str:
    return version.partition(".")[0]


def _versions(those: Versions) -> str:
    packages = (f"{name} {those.packages.get(name) or '(missing)'}" for name in PACKAGES)
    values = (f"{name} {those.packages[name]}" for name in VALUES if those.packages.get(name))
    return ", ".join([f"Python {those.python}", *packages, *values])


async def clock(case: Case) -> Finding:
    """Whether it has the time of here."""
    least, most = case.ahead
    if least <= 0 <= most:
        return _ok(f"as here, within {max(-least, most):.1f} s")
    skew = least if least > 0 else most
    if skew < -CLOCK_SKEW.total_seconds():
        raise SiteError(
            f"it is {format_duration(-skew)} behind this machine's, and certificates made here are not valid there yet",
            where=case.where,
            remedy="One of the two clocks is wrong: `date -u` on each shows which.",
        )
    if warning := clock_warning(skew, site=case.site.name):
        return _note(warning, "Times in logs, and estimates of starts, are off by that much.")
    return _ok(f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's, which does not matter")


async def home(case: Case) -> Finding:
    """Whether our files can lie where they are to lie."""
    assert case.found is not None  # noqa: S101 (for mypy: else it is skipped)
    place, site = case.found.home, case.site.name
    check_home(case.found, site=site)
    await _try_writing(case.shell, place, site)
    await bootstrap.ship_code(case.shell, place, site=site)
    mode, free, inodes = await _space(case.shell, place)
    facts = [f"{place} can be written", *([f"mode {mode}"] if mode else [])]
    facts += [f"{free / 2**30:,.1f} GiB free"] if free is not None else ["free space is not told"]
    facts += [f"{inodes:,} inodes free"] if inodes is not None else []
    text = ", ".join(facts)
    if (free is not None and free < ROOM) or (inodes is not None and inodes < FILES):
        return _note(f"{text}: that is not much", f"Free some, or set home: of site {site!r} to a place with room.")
    return _ok(f"{text}; our code is there")


async def _try_writing(shell: Shell, place: str, site: str) -> None:
    file, data = f"{place}/.doctor.{secrets.token_hex(8)}", secrets.token_bytes(64)
    try:
        await shell.mkdir(place)
        await shell.write(file, data)
        try:
            if await shell.read(file) != data:
                raise SiteError(f"what is written to {place} is read back as something else", where=f"site {site}")
        finally:
            await shell.remove(file)
    except OSError as exc:
        raise bootstrap.cannot_write(exc, place, site) from exc


async def _space(shell: Shell, place: str) -> tuple[str, int | None, int | None]:
    """The mode of a directory, and the bytes and inodes that are free there; what is not told is empty, or None."""
    done = await shell.run(["sh", "-c", _SPACE, "sh", place])
    mode = re.search(r"^mode (\d+)$", done.out, re.MULTILINE)
    rows = re.findall(r"^\S.*?\s\d+\s+-?\d+\s+(-?\d+)\s+(?:\d+%|-)\s", done.out, re.MULTILINE)
    free = max(0, int(rows[0])) * 1024 if rows else None
    # Some file systems have no fixed number of inodes, and say 0 of 0.
    return mode[1] if mode else "", free, int(rows[1]) if len(rows) > 1 and int(rows[1]) > 0 else None


async def batch(case: Case) -> Finding:
    """Whether the batch system answers, and what there is to choose from."""
    system = case.site.batch
    try:
        version = await system.version()
        limits = await system.limits()
        cores, _ = (None, 1) if limits.partitions else await system.room(case.spec.resources)
    except BatchUnknown as exc:
        raise SiteError(
            "it gave no answer",
            where=case.where,
            evidence=str(exc),
            remedy="It may be down, or not be reached from there: try `sinfo` by hand on the login node.",
        ) from exc
    case.answers = True
    if system.kind == "process":
        return _ok(f"none: jobs are {version}" + (f", on {cores} cores" if cores else ""))
    return _ok("; ".join([f"{version} answers", *_choice(limits)]))


def _choice(limits: Limits) -> list[str]:
    first = sorted(limits.partitions, key=lambda p: not p.default)
    partitions = f"partitions: {_some([str(p) for p in first])}" if first else "it names no partitions"
    default = limits.default_account
    accounts = [f"{name} (default)" if name == default else name for name in limits.accounts]
    accounts.sort(key=lambda name: not name.endswith("(default)"))
    return [partitions, f"your accounts: {_some(accounts)}" if accounts else "it names no accounts of yours"]


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


async def job(case: Case) -> Finding:
    """Whether it would take a cluster's job as the entry has it, and when that would start. Nothing is submitted."""
    path = case.found.home if case.found else ""
    token = secrets.token_hex(16)
    request = allocation.request_of(case.spec, token=token, path=f"{path}/runs/{token[:16]}")
    try:
        starts = await case.site.batch.starts(request)
    except BatchUnknown as exc:
        raise BatchError(
            "the batch system gave no answer",
            where=case.where,
            evidence=str(exc),
            remedy="It may be busy: ask again in a minute.",
        ) from exc
    asked = _wish(case.spec.resources)
    if starts is None:
        return _ok(f"{asked} would be taken; when it would start is not said")
    ahead = sum(case.ahead) / 2  # the estimate is by the site's clock
    wait = starts - ahead - time.time()
    if wait < 60:
        return _ok(f"{asked} would start at once")
    at = time.strftime("%a %d %b %H:%M" if wait > 12 * 3600 else "%H:%M", time.localtime(starts - ahead))
    return _ok(f"{asked} would start about {at}, in {format_duration(wait // 60 * 60)}")


async def routes(case: Case) -> Finding:
    """Which ways to a pilot the login node leaves open; which of them the nodes do, the first cluster finds out."""
    direct, session = await _forwards(case.shell), await _holds_session(case.shell)
    forced = case.site.config.link
    lacks = {"direct": not direct, "exec": not session, "srun": not session, "reverse": not session}
    no_forwarding = "sshd there forbids TCP forwarding (AllowTcpForwarding, PermitOpen)"
    no_session = "sshd there allows one session at a time (MaxSessions)"
    if lacks.get(forced):
        raise ConnectionFailed(
            f"{no_session if direct else no_forwarding}, and link: {forced} needs it",
            where=case.where,
            remedy=f"Leave link: out of the entry of site {case.site.name!r}: another route is then found.",
        )
    if direct and session:
        return _ok(
            "sshd allows forwarding (direct) and a relay's session (exec); the nodes are tried by the first cluster"
        )
    if session:
        return _note(f"{no_forwarding}: the link takes a relay on the login node (exec)")
    if direct:
        return _note(f"{no_session}: the link is made by forwarding (direct), or is slow (mailbox)")
    return _note(f"{no_forwarding}, and {no_session.removeprefix('sshd there ')}: the link will be slow (mailbox)")


async def _forwards(shell: Shell) -> bool:
    try:
        _, writer = await shell.dial("127.0.0.1", 22)
    except Forbidden:
        return False
    except ConnectionFailed:
        if not shell.alive:
            raise
        return True  # nothing listens there, which sshd has tried for us
    writer.close()
    return True


async def _holds_session(shell: Shell) -> bool:
    """Whether a command can go on while others come and go, as a relay must."""
    mark = secrets.token_hex(16).encode()
    try:
        reader, writer = await shell.pipe(["cat"])
    except ConnectionFailed:
        if not shell.alive:
            raise
        return False
    try:
        writer.write(mark + b"\n")
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(mark)
            await shell.run(["true"])
            return True
        return False
    finally:
        writer.close()
