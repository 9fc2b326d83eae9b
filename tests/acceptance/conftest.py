"""Fixtures of the tests that run whole notebooks, or cells in a notebook's kernel."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

import hpcnb as hpc
from hpcnb.pilot.worker.call import Call
from tests.isolation import Isolation, isolation
from tests.unit.pilot.conftest import host
from tests.unit.pilot.host import HostProcess, environment

__all__ = ["host"]

DEADLINE = 60.0
START = 60.0


@dataclass
class Executed:
    """A cell that was sent to the kernel, and what has come of it."""

    id: str
    outputs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
    idle: bool = False

    @property
    def text(self) -> str:
        """All that it printed."""
        return "".join(content["text"] for kind, content in self.outputs if kind == "stream")

    @property
    def error(self) -> tuple[str, str]:
        """Name and message of the last error shown."""
        last = [content for kind, content in self.outputs if kind == "error"][-1]
        return last["ename"], last["evalue"]


class Kernel:
    """A notebook's kernel with `%%hpc`, driven as a front end does it."""

    def __init__(self, host: HostProcess) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=environment())
        self._cells: dict[str, Executed] = {}
        self.run(f"from tests.acceptance.plug import plug; plug({host.address!r}, {str(host.run_dir)!r})")

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.context.destroy()

    def send(self, code: str, *, allow_stdin: bool = False) -> Executed:
        """Start a cell."""
        cell = Executed(self.client.execute(code, allow_stdin=allow_stdin))
        self._cells[cell.id] = cell
        return cell

    def run(self, code: str) -> Executed:
        """Run a cell to its end."""
        return self.wait(self.send(code))

    def wait(self, cell: Executed, timeout: float = DEADLINE) -> Executed:
        """Wait for the end of a cell, taking the output of all cells meanwhile."""
        self.hear_until(lambda: cell.idle, timeout)
        while not cell.reply:
            reply = self.client.get_shell_msg(timeout=timeout)
            if known := self._cells.get(reply["parent_header"]["msg_id"]):  # else a late answer from the start
                known.reply = reply["content"]
        return cell

    def hear_until(self, condition: Any, timeout: float = DEADLINE) -> None:
        """Take output until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not in {timeout} s: {[c.outputs for c in self._cells.values()]}"
            try:
                message = self.client.get_iopub_msg(timeout=min(left, 0.1))
            except queue.Empty:
                continue
            cell = self._cells.get(message["parent_header"].get("msg_id"))
            if cell is not None:
                self._hear(cell, message["msg_type"], message["content"])

    def _hear(self, cell: Executed, kind: str, content: dict[str, Any]) -> None:
        if kind == "status":
            cell.idle = content["execution_state"] == "idle"
        elif kind != "execute_input":
            cell.outputs.append((kind, content))


@contextlib.contextmanager
def notebook_at_work(folder: Path, workers: int = 1) -> Iterator[Kernel]:
    """A notebook that lies in a folder, with a cluster of workers of one core on this machine."""
    with pytest.MonkeyPatch.context() as monkeypatch, isolation(monkeypatch) as place:
        notebook = Kernel.__new__(Kernel)
        notebook._cells, notebook.environ = {}, environment() | place.environ
        notebook.manager, notebook.client = start_new_kernel(
            kernel_name="python3", env=notebook.environ, cwd=str(folder)
        )
        started = notebook.send(
            f"%load_ext hpcnb\nimport hpcnb as hpc\n%hpc up local --workers-per-node {workers} --cores-per-worker 1"
        )
        assert notebook.wait(started, START).reply["status"] == "ok", started.outputs
        yield notebook
        notebook.close()


@contextlib.contextmanager
def own_cluster(**wishes: Any) -> Iterator[hpc.Cluster]:
    """A cluster on this machine that is in use, in a place of its own."""
    with pytest.MonkeyPatch.context() as monkeypatch, isolation(monkeypatch), hpc.Cluster("local", **wishes) as cluster:
        cluster.wait_until_ready(START)
        yield hpc.use(cluster)


@pytest.fixture
def place(isolated: Isolation) -> Iterator[Isolation]:
    """Where no cluster stays."""
    yield isolated
    for left in hpc.clusters():
        left.close()


@pytest.fixture
def run(cluster):
    """Submit a call."""

    def run(fn, *args, timeout=None, isolate=False):
        return cluster.client.submit(Call(fn, timeout=timeout, isolate=isolate), *args, pure=False)

    return run


@pytest.fixture(scope="module")
def kernel(host):
    """A notebook's kernel with `%%hpc`."""
    kernel = Kernel(host)
    yield kernel
    kernel.close()
