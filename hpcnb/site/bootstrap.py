"""Prepare a run at a site: ship the code once, write the run directory, render the job's script."""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import io
import json
import py_compile
import shlex
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hpcnb.errors import SiteError
from hpcnb.pilot.route.rendezvous import FOLDER
from hpcnb.pilot.run import Run
from hpcnb.site.authority import Authority, Identity, Role
from hpcnb.site.environment import Environment
from hpcnb.site.shell import Shell

PILOT_ROLES = (Role.GATEWAY, Role.SCHEDULER, Role.WORKER, Role.SESSION, Role.CLIENT)
STARTING = ("hpcnb/__init__", "hpcnb/errors", "hpcnb/model", "hpcnb/link/", "hpcnb/pilot/")
"""What every start of a cluster imports; it is shipped compiled, too."""

EPOCH = (1980, 1, 1, 0, 0, 0)
FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is exceeded", errno.EROFS: "it is read-only"}


@functools.cache
def code() -> tuple[str, bytes]:
    """This very package as a zip for `PYTHONPATH`, and the hash of its content."""
    root = Path(__file__).parent.parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*.py")):
            name = str(Path("hpcnb") / path.relative_to(root))
            _add(archive, name, path.read_bytes())
            if name.startswith(STARTING):
                _add(archive, f"{name}c", _compiled(path))
    data = buffer.getvalue()
    return hashlib.sha256(data).hexdigest()[:32], data


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    # A fixed date: the same code is the same bytes, and is shipped once.
    archive.writestr(zipfile.ZipInfo(name, date_time=EPOCH), data, zipfile.ZIP_DEFLATED)


def _compiled(path: Path) -> bytes:
    # The site's Python has the same minor version (`environment.judge`), and so the same bytecode.
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "module.pyc")
        py_compile.compile(
            str(path),
            str(compiled),
            path.name,
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        return compiled.read_bytes()


async def ship_code(shell: Shell, home: str, *, site: str) -> str:
    """Put the package on the site unless it is there already; return the zip's path.

    Raises
    ------
    SiteError
        There is no room, or the place cannot be written.
    """
    sha, data = await asyncio.to_thread(code)  # it compiles
    folder = f"{home}/code/{sha}"
    path = f"{folder}/hpcnb.zip"
    try:
        if await _same(shell, path, len(data)):
            return path
        await shell.mkdir(folder)
        await shell.write(path, data)
    except OSError as exc:
        raise cannot_write(exc, folder, site) from exc
    return path


async def _same(shell: Shell, path: str, size: int) -> bool:
    # The name is the hash of the content and the file came by rename, so that its length is proof enough.
    try:
        return len(await shell.read(path, offset=size - 1)) == 1
    except FileNotFoundError:
        return False


def cannot_write(exc: OSError, path: str, site: str) -> SiteError:
    """The error that says why something could not be written at a site, and what helps."""
    why = FULL.get(exc.errno or 0) or exc.strerror or str(exc)
    return SiteError(
        f"cannot write {path}: {why}",
        where=f"site {site}",
        evidence=str(exc),
        remedy=f"Free some space there, or set home: of site {site!r} in ~/.config/dask/hpcnb.yaml to a place with room.",
    )


def dask_configuration(path: str) -> dict[str, Any]:
    """What the scheduler and the workers of a run are told.

    Mutual TLS everywhere; Dask's HTTP servers, which it starts even with ``--no-dashboard``, without a single route.
    """
    pair = {role: {"cert": f"{path}/tls/{role}.pem", "key": f"{path}/tls/{role}.key"} for role in PILOT_ROLES}
    tls = {
        "ca-file": f"{path}/tls/ca.pem",
        "scheduler": pair[Role.SCHEDULER],
        "worker": pair[Role.WORKER],
        "client": pair[Role.CLIENT],
    }
    return {
        "distributed": {
            "comm": {"require-encryption": True, "tls": tls},
            "scheduler": {"http": {"routes": []}, "allowed-failures": 3, "worker-saturation": 10},
            "worker": {"http": {"routes": []}},
            # Every message that hpcnb has to say comes through its own views.
            "logging": {"distributed": "info"},
        }
    }


def code_path(zip_path: str) -> str:
    """The shell line that lets a Python find our code."""
    return f'export PYTHONPATH={shlex.quote(zip_path)}"${{PYTHONPATH:+:$PYTHONPATH}}"'


def job_script(run: Run, environment: Environment, zip_path: str) -> str:
    """The script that the batch system starts. Pure; holds no secret.

    The claim makes sure that of two jobs that a confused submission made, one stops at once.
    """
    path = shlex.quote(run.path)
    lines = [
        environment.shebang,
        "umask 077",
        f"mkdir {path}/claim || exit 0",
        code_path(zip_path),
        f"export DASK_CONFIG={path}/dask PYTHONUNBUFFERED=1",
        # One thread of BLAS for each thread of a worker, as Dask's nanny sets it.
        "export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1",
        environment.enter("-m", "hpcnb.pilot", "--run-dir", run.path),
    ]
    return "\n".join(lines) + "\n"


def run_files(
    run: Run, environment: Environment, *, zip_path: str, authority: Authority, secret: str, scratch: str = ""
) -> Mapping[str, str]:
    """Every file of a new run directory by its relative path.

    `scratch` is where the nodes put large temporary files; it may name a variable of theirs.
    """
    lifetime = run.spec.resources.walltime
    roles: dict[Role, Identity] = {role: authority.issue(role, lifetime=lifetime) for role in PILOT_ROLES}
    files = {
        "run.json": json.dumps(run.to_json(), indent=1),
        "job.sh": job_script(run, environment, zip_path),
        "dask/hpcnb.yaml": json.dumps({"temporary-directory": scratch, **dask_configuration(run.path)}, indent=1),
        "tls/ca.pem": authority.certificate,
        "tls/link.secret": secret,
    }
    for role, identity in roles.items():
        files[f"tls/{role}.pem"] = identity.certificate
        files[f"tls/{role}.key"] = identity.key
    return files


# One command and one round trip, whatever the number of files; directories first get their final mode.
_UNPACK = 'umask 077; export LC_ALL=C; mkdir -p "$1/logs" && exec tar -x -f - -C "$1"'


async def write_run(shell: Shell, run: Run, files: Mapping[str, str], *, site: str) -> None:
    """Make the run directory, 0700, with its files, 0600.

    Raises
    ------
    SiteError
        It could not be written; what `tar` said is the evidence.
    """
    try:
        done = await shell.run(["sh", "-c", _UNPACK, "sh", run.path], stdin=_tar(files), timeout=60)
    except OSError as exc:
        raise cannot_write(exc, run.path, site) from exc
    if done.returncode:
        text = done.err.strip()
        known = next((n for n, words in _TAR_SAYS.items() if words in text), 0)
        raise cannot_write(OSError(known, text), run.path, site)


_TAR_SAYS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EROFS: "Read-only file system",
}


def _tar(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folders = sorted({str(parent) for name in files for parent in PurePosixPath(name).parents if parent.name})
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(entry)
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


async def remove_run(shell: Shell, path: str) -> None:
    """Delete a run directory."""
    await shell.run(["rm", "-rf", path])


# A run that has ended has no tls/ any more, unless the site was out of reach then; what is left of it is logs, kept for
# two weeks.
_FORGET = (
    'cd "$1/runs" 2>/dev/null || exit 0; for d in *; do [ -e "$d/ended.json" ] && rm -rf "$d/tls"; [ -d "$d/tls" ] || '
    'find "$d" -maxdepth 0 -mtime +14 -exec rm -rf {} +; done'
)


async def forget_secrets(shell: Shell, path: str, home: str) -> None:
    """Delete the secrets of a run that has ended, and the logs of those that ended two weeks ago."""
    await shell.run(["rm", "-rf", f"{path}/tls", f"{path}/{FOLDER}"])
    await shell.run(["sh", "-c", _FORGET, "sh", home])
