"""A notebook on the laptop: a kernel there, driven from here as a front end does it."""

from __future__ import annotations

import secrets
import sys

from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from tests.acceptance.conftest import Executed, Kernel
from tests.lab.faults import kill
from tests.lab.lab import NB, Lab, until

START = "%load_ext hpcnb\nimport hpcnb as hpc"


class Notebook(Kernel):
    """One kernel of the user *nb*, with hpcnb loaded.

    Parameters
    ----------
    lab : Lab
    name : str
        A later kernel with the same name is the same notebook again.
    """

    def __init__(self, lab: Lab, name: str = "work.ipynb") -> None:
        self._lab = lab
        self._place = f"{NB.home}/kernel-{secrets.token_hex(4)}"
        lab.laptop.run("mkdir", self._place, user=NB)
        folder = lab.laptop.path(self._place)
        _, known = write_connection_file(str(folder / "file"), transport="ipc", ip=f"{self._place}/s")
        lab.laptop.run("chown", "nb:nb", f"{self._place}/file")
        command = (sys.executable, "-m", "ipykernel_launcher", "-f", f"{self._place}/file")
        with (folder / "log").open("w") as log:
            self.process = lab.laptop.start(
                *command, user=NB, environ={"JPY_SESSION_NAME": f"{NB.home}/{name}"}, stdout=log, stderr=log
            )
        until((folder / "s-1").exists, why="the kernel listens")
        # Sockets have no network: from here they are the same files, under another name.
        self.client = BlockingKernelClient()
        self.client.load_connection_info({**known, "ip": str(folder / "s")})
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self._cells: dict[str, Executed] = {}
        self.run(START)

    def up(self, *options: str) -> None:
        """Start a cluster, and wait until it is ready."""
        self.do(" ".join(["%hpc up centre --workers-per-node 1 --cores-per-worker 1", *options]), 120)

    def do(self, code: str, timeout: float = 60) -> Executed:
        """Run a cell that must succeed."""
        cell = self.wait(self.send(code), timeout)
        assert cell.reply["status"] == "ok", cell.outputs
        return cell

    def kernels(self) -> list:
        """The kernel's process on the laptop."""
        return self._lab.laptop.named("ipykernel_launcher", self._place)

    def close(self) -> None:
        """End the kernel, by SIGKILL; harmless where that is done."""
        if self.process.returncode is not None:
            return
        self.client.stop_channels()
        self.client.context.destroy()
        kill(self.kernels())
        self.process.wait()

    def value(self, expression: str, timeout: float = 60) -> str:
        """What an expression is, printed."""
        return self.do(f"print({expression})", timeout).text.strip()
