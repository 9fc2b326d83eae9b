"""The quickstart on a real Slurm site, and a notebook that nobody watches."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from hpcnb.sandbox import Sandbox
from tests.isolation import Isolation

pytestmark = [pytest.mark.site, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def _configure(isolated: Isolation, entry: dict[str, str]) -> None:
    isolated.configure(yaml.safe_dump({"hpcnb": {"sites": {"sandbox": entry | {"home": str(isolated.home)}}}}))


def _ssh_port(sandbox: Sandbox) -> int:
    (port,) = re.findall(r"^\s*Port (\d+)", sandbox.ssh_config.read_text(), re.MULTILINE)
    return int(port)


def _connections(port: int) -> int:
    """TCP connections that this machine's clients have to a port."""
    found = psutil.net_connections("tcp")
    return sum(bool(c.raddr) and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in found)


async def _run(port: int) -> tuple[int, str, set[int]]:
    """Run the quickstart; its exit status, its output, and how many connections were ever seen."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "notebooks" / "run.py"),
        str(ROOT / "notebooks" / "quickstart.ipynb"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    ended = asyncio.ensure_future(process.communicate())
    seen = set()
    while not ended.done():
        seen.add(_connections(port))
        await asyncio.wait([ended], timeout=0.1)
    output, _ = await ended
    return process.returncode or 0, output.decode(), seen


@pytest.mark.timeout(300)
async def test_the_quickstart_runs_in_an_allocation_over_one_connection(
    sandbox: Sandbox, isolated: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same notebook on real sshd, sbatch and srun: one TCP connection, and afterwards nothing is left."""
    _configure(isolated, sandbox.site_entry())
    monkeypatch.setenv("QUICKSTART_SITE", "sandbox")
    code, output, seen = await _run(_ssh_port(sandbox))
    assert code == 0, output
    assert "95 % threshold" in output
    assert max(seen) == 1
    queue = await asyncio.create_subprocess_exec(
        "squeue", "--noheader", env=sandbox.slurm_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert await queue.communicate() == (b"", b"")
    stop = await asyncio.create_subprocess_exec(sys.executable, "-m", "hpcnb.cli", "agent", "stop")
    assert await stop.wait() == 0
    async with asyncio.timeout(30):
        while isolated.processes():  # noqa: ASYNC110 - nothing tells of another process's end
            await asyncio.sleep(0.05)


def test_a_notebook_that_nobody_watches_fails_where_it_would_have_to_ask(
    sandbox: Sandbox, isolated: Isolation, tmp_path: Path
) -> None:
    """Run by nbclient, an unknown host key is an error that says what to do, at once, and nothing waits for input."""
    known, config = tmp_path / "known_hosts", tmp_path / "ssh_config"
    lines = sandbox.ssh_config.read_text().splitlines()
    lines = [f"  UserKnownHostsFile {known}" if "UserKnownHostsFile" in line else line for line in lines]
    config.write_text("\n".join(line for line in lines if "StrictHostKeyChecking" not in line) + "\n")
    _configure(isolated, sandbox.site_entry() | {"ssh-config": str(config)})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%load_ext hpcnb\n%hpc up sandbox")])
    with pytest.raises(CellExecutionError) as caught:
        NotebookClient(notebook, timeout=60).execute()
    message = str(caught.value)
    assert "HostKeyMismatch" in message or "AuthenticationFailed" in message
    assert "SHA256:" in message
    assert "obody" in message  # nobody can answer here
    assert not known.exists()
