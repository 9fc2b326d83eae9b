"""The Python at a site: how it is entered, what it is, and whether it can work with the one here."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hpcnb.errors import EnvironmentMismatch, SiteError
from hpcnb.model import Record, Versions
from hpcnb.site.shell import Completed, Shell

BEGIN, END = "<<<hpcnb:", ":hpcnb>>>"
"""Around our answer, since a login shell may print what it likes before and after."""

PACKAGES = ("dask", "distributed", "ipykernel", "cloudpickle", "msgpack")
"""What hpcnb itself needs."""
VALUES = ("numpy", "pandas", "scipy", "pyarrow")
"""What values are often made of, which then cannot travel to where it is missing, or of another major release."""
SKEW = 60.0
"""Seconds by which two clocks may differ before we say so."""

# Runs under any Python that a site may have, so that an old one is named instead of failing on syntax.
PROBE = f"""
import json, os, platform, socket, sys, time
found = {{}}
try:
    from importlib.metadata import version
    for name in {(*PACKAGES, *VALUES)!r}:
        try:
            found[name] = version(name)
        except Exception:
            found[name] = ""
except ImportError:
    pass
home = os.environ.get("HPCNB_HOME") or os.path.join("~", ".hpcnb")
home = os.path.expandvars(os.path.expanduser(home))
try:
    seen = os.stat(home)
    exposed = seen.st_uid != os.getuid() or bool(seen.st_mode & 0o022)
except OSError:
    exposed = False
print("{BEGIN}" + json.dumps(dict(
    python=platform.python_version(), executable=sys.executable, packages=found, home=home,
    user_home=os.path.expanduser("~"), exposed=exposed, host=socket.gethostname(), clock=time.time(),
    umask=int(os.environ.get("HPCNB_UMASK") or "77", 8),
)) + "{END}")
"""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """How Python is entered at a site.

    Parameters
    ----------
    python : str
        Path or name of the interpreter; ``~`` is the home directory there.
    setup : sequence of str
        Shell lines that come first (``module load python``), run by ``bash -l``.
    """

    python: str
    setup: Sequence[str] = ()

    def argv(self, script: str) -> list[str]:
        """The command that runs a shell script in this environment."""
        return ["bash", "-l", "-c", script] if self.setup else ["sh", "-c", script]

    def enter(self, *arguments: str) -> str:
        """Shell lines that set up the environment and become ``python ARGUMENTS``."""
        return "\n".join([*self.setup, f"exec {self.interpreter} {shlex.join(arguments)}"])

    @property
    def interpreter(self) -> str:
        """The interpreter as one shell word."""
        if self.python.startswith("~/"):
            return '"$HOME"/' + shlex.quote(self.python[2:])
        return shlex.quote(self.python)

    @property
    def shebang(self) -> str:
        return "#!/bin/bash -l" if self.setup else "#!/bin/sh"


@dataclass(frozen=True, kw_only=True)
class Probe(Record):
    """What a site answered: its Python, its packages, its places, its clock (POSIX seconds), the user's umask.

    `exposed` says that others can write where our files go.
    """

    python: str
    executable: str
    packages: dict[str, str]
    home: str
    user_home: str
    host: str
    clock: float
    exposed: bool = False
    umask: int = 0o077


async def probe(shell: Shell, environment: Environment, *, site: str, home: str = "") -> Probe:
    """Ask a site for its Python by one command.

    Parameters
    ----------
    home : str
        Where our files go there; empty: ``$HPCNB_HOME`` of the site, or ``~/.hpcnb``.

    Raises
    ------
    EnvironmentMismatch
        There is no such interpreter, or it gave no answer.
    """
    script = f"HPCNB_HOME={shlex.quote(home)}; export HPCNB_HOME\n" if home else ""
    try:
        answer = await shell.run(environment.argv(script + environment.enter("-c", PROBE)), timeout=60)
    except OSError as exc:
        raise EnvironmentMismatch(
            f"{environment.python!r} gave no answer",
            where=f"site {site}",
            evidence=str(exc),
            remedy="Try it by hand on the login node first: a setup: line may wait for something.",
        ) from exc
    # The last of each: a shell that shows what it runs shows our question, too.
    begin, end = answer.out.rfind(BEGIN), answer.out.rfind(END)
    if begin < 0 or end < 0:
        raise _no_answer(answer, environment, site)
    try:
        return Probe.from_json(json.loads(answer.out[begin + len(BEGIN) : end]))
    except (ValueError, TypeError, AttributeError):  # cut, or mixed with what something else printed
        raise _no_answer(answer, environment, site) from None


def _no_answer(answer: Completed, environment: Environment, site: str) -> SiteError:
    evidence = (answer.err or answer.out).strip()[-2000:]
    key = f"Set python: of site {site!r} in ~/.config/dask/hpcnb.yaml to an interpreter that exists there"
    if answer.returncode in (126, 127):
        return EnvironmentMismatch(
            f"there is no Python at {environment.python!r}",
            where=f"site {site}",
            evidence=evidence,
            remedy=f"{key}, or add the setup: lines that make it available.",
        )
    return EnvironmentMismatch(
        f"{environment.python!r} gave no answer (exit status {answer.returncode})",
        where=f"site {site}",
        evidence=evidence,
        remedy=f"{key}; try it by hand on the login node first.",
    )


def versions() -> Versions:
    """What this very process runs on."""
    packages = {name: _version(name) for name in (*PACKAGES, *VALUES)}
    return Versions(python=platform.python_version(), packages=packages)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def judge(found: Probe, ours: Versions, *, site: str) -> list[str]:
    """Whether that Python can work with the client's, which is not the agent's everywhere; returns warnings.

    Functions travel as bytecode and both ends speak Dask's own protocol, so the minor version of Python and
    the release of distributed must be equal.

    Raises
    ------
    EnvironmentMismatch
        With the command that mends it.
    SiteError
        Others can write where our files go.
    """
    check_home(found, site=site)
    check_versions(found, ours, site=site)
    warning = clock_warning(found.clock - time.time(), site=site)
    return [warning] if warning else []


def check_versions(found: Probe, ours: Versions, *, site: str) -> None:
    """Whether that Python and what it has suit the client's; raises `EnvironmentMismatch`."""
    where = f"site {site}, {found.executable}"
    here = ours.python
    if found.python.split(".")[:2] != here.split(".")[:2]:
        raise EnvironmentMismatch(
            f"Python is {found.python} there and {here} here; functions cannot travel between different minor versions",
            where=where,
            remedy=f"Use Python {here.rsplit('.', 1)[0]} at the site, or start the notebook with Python "
            f"{found.python.rsplit('.', 1)[0]}.",
        )
    pins = [f"{name}=={ours.packages[name]}" for name in ("dask", "distributed")]
    install = f"At the site: {found.executable} -m pip install {' '.join([*pins, 'ipykernel'])}"
    if missing := [name for name in ("dask", "distributed", "ipykernel") if not found.packages.get(name)]:
        raise EnvironmentMismatch(f"{' and '.join(missing)} not installed there", where=where, remedy=install)
    for name in ("dask", "distributed"):
        if found.packages[name] != ours.packages[name]:
            raise EnvironmentMismatch(
                f"{name} is {found.packages[name]} there and {ours.packages[name]} here; the two cannot be relied on together",
                where=where,
                remedy=install,
            )


def check_home(found: Probe, *, site: str) -> None:
    """Whether our files are safe there from others; raises `SiteError`."""
    if found.exposed:
        raise SiteError(
            f"others can write to {found.home}, where code is put that runs as you",
            where=f"site {site}",
            remedy=f"At the site: chmod go-w {found.home}; or set home: of the site to a directory of your own.",
        )


def clock_warning(skew: float, *, site: str) -> str:
    """What there is to say of a clock that is so many seconds ahead of ours; empty where that does not matter."""
    if abs(skew) <= SKEW:
        return ""
    return f"the clock of site {site} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's"


HERE = Environment(python=sys.executable)
"""The environment that this very process runs in."""
