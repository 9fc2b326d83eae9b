"""Binder's scripts, as the ordinary user that Binder's visitors are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

import hpcnb
from tests.figures import patient
from tests.site.account import until

ROOT = Path(hpcnb.__file__).parents[1]
VISITOR = 54321
"""The visitor's uid: nobody else's on this machine."""
AS_VISITOR = """
set -e
mount --bind "$1" /etc/passwd
# Root's home may hold the Python under test, and is nobody else's to enter: the visitor has another, with that alone.
exec 3<"$2"
mount -t tmpfs -o mode=755 tmpfs /root
mkdir -p "$2"
mount --no-canonicalize --bind /proc/self/fd/3 "$2"
shift 2
exec setpriv --reuid=$0 --regid=$0 --clear-groups --no-new-privs env -i "$@"
"""

pytestmark = [
    pytest.mark.site,
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root to become the visitor"),
]


@pytest.fixture
def visit(debian):
    """Run something as the visitor, in a clone of his own; nothing of his is left running."""
    folder = Path(tempfile.mkdtemp(prefix="binder-", dir="/tmp"))
    home, passwd = folder / "home", folder / "passwd"
    home.mkdir()
    passwd.write_text(Path("/etc/passwd").read_text() + f"visitor:x:{VISITOR}:{VISITOR}::{home}:/bin/bash\n")
    for part in ("binder", "notebooks"):
        shutil.copytree(ROOT / part, home / part, ignore=shutil.ignore_patterns("_output", ".ipynb_checkpoints"))
    folder.chmod(0o755)
    for path in (home, *home.rglob("*")):
        os.chown(path, VISITOR, VISITOR)
    given = passwd, sys.base_prefix
    variables = [f"HOME={home}", f"PATH={Path(sys.executable).parent}:/usr/bin:/bin", "LANG=C.UTF-8"]

    def visit(*command):
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", AS_VISITOR, str(VISITOR), *map(str, given), *variables, *command],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    if visit("python", "-c", "import hpcnb.cli").returncode:
        shutil.rmtree(folder)
        pytest.skip(f"other users cannot read {ROOT}")
    yield visit
    for command in (["down", "--all"], ["agent", "stop"], ["sandbox", "down"]):
        visit("hpcnb", *command)
    until(lambda: not running())
    shutil.rmtree(folder)


def running():
    """The visitor's processes; those that nobody has waited for yet have ended."""
    found = psutil.process_iter(["uids", "status"])
    return [p for p in found if p.info["uids"].real == VISITOR and p.info["status"] != psutil.STATUS_ZOMBIE]


@pytest.mark.timeout(400)
def test_the_sandbox_and_the_quickstart_as_an_ordinary_user(visit, figure):
    """`start` brings the sandbox up for a visitor without privileges, and the quickstart runs on it to its end."""
    begun = time.monotonic()
    done = visit("binder/start", "python", "notebooks/run.py", "notebooks/quickstart.ipynb")
    took = time.monotonic() - begun
    figure(f"Binder's start and the quickstart: {took:.0f} s (90 asked)")
    assert done.returncode == 0, done.stdout
    assert "The sandbox is up after" in done.stdout
    assert "quickstart on sandbox" in done.stdout
    assert "95 % threshold" in done.stdout
    assert took < patient(90)
