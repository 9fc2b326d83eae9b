"""A Jupyter server as one user has it, for a user without any settings."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.isolation import Isolation
from tests.site.account import until

OTHERS = {
    "dask-labextension": ("dask_labextension", "dask-labextension"),
    "jupyter-server-proxy": ("jupyter_server_proxy", "@jupyterhub/jupyter-server-proxy"),
    "notebook": ("notebook", "@jupyter-notebook/lab-extension"),
    "voila": ("voila.server_extension", "@voila-dashboards/jupyterlab-preview"),
}
"""Extensions of servers and of JupyterLab that tests have beside ours, and most of them not."""
START = 60.0
"""Seconds that a server, a page or a kernel may take to come up on a busy machine."""


def leave_out(config: Path, beside: Sequence[str] = ()) -> None:
    """Turn off the extensions of others in a directory of Jupyter's configuration, but for some of them."""
    servers = {server: False for name, (server, _) in OTHERS.items() if name not in beside}
    labs = {lab: True for name, (_, lab) in OTHERS.items() if name not in beside}
    (config / "labconfig").mkdir()
    (config / "labconfig" / "page_config.json").write_text(json.dumps({"disabledExtensions": labs}))
    (config / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": servers}}))


class Jupyter(Isolation):
    """A server on a loopback port that the kernel chooses.

    Parameters
    ----------
    folder : Path
        Short, since it holds sockets; made and removed by the caller.
    module : str
        What is run: ``jupyter_server`` or ``jupyterlab``.
    options : sequence of str
        Further options of it.
    port : int
        Where it can be found again after a restart; 0: wherever the kernel chooses.
    beside : sequence of str
        The extensions of others that are on, of those that are installed for tests (`OTHERS`).
    """

    def __init__(
        self,
        folder: Path,
        module: str = "jupyter_server",
        options: Sequence[str] = (),
        *,
        port: int = 0,
        beside: Sequence[str] = (),
    ) -> None:
        super().__init__(folder)
        self.notebooks = folder / "notebooks"
        places = {name: folder / name.lower() for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
        places["JUPYTER_RUNTIME_DIR"] = self._runtime_dir = folder / "run" / "jupyter"
        settings = places["JUPYTER_CONFIG_DIR"] / "lab/user-settings/@jupyterlab/apputils-extension"
        for path in (self.notebooks, self._runtime_dir, settings):
            path.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
        leave_out(places["JUPYTER_CONFIG_DIR"], beside)
        self.token = secrets.token_hex(16)
        self._environ = (
            os.environ | self.environ | {k: str(v) for k, v in places.items()} | {"JUPYTER_TOKEN": self.token}
        )
        self._command = [sys.executable, "-m", module, *self._options(port), *options]
        self.start()

    def _options(self, port: int) -> list[str]:
        return [
            "--no-browser",
            *["--allow-root"] * (os.getuid() == 0),
            f"--ServerApp.port={port}",
            f"--ServerApp.root_dir={self.notebooks}",
        ]

    def start(self) -> None:
        """Start the server; returns when it answers."""
        log = self.folder / "jupyter.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        known = self._runtime_dir / f"jpserver-{self._process.pid}.json"
        until(lambda: known.exists() or self._process.poll() is not None, within=START)
        assert self._process.poll() is None, log.read_text()
        self.url = json.loads(until(known.read_text))["url"]

    def stop(self) -> None:
        """Stop the server; agent and clusters go on."""
        self._process.terminate()
        self._process.wait(START)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the server and hpcnb; nothing may be left of them."""
        try:
            self.stop()
            self.command("down", "--all")
            self.command("agent", "stop")
            until(lambda: self.processes() == [])
        finally:
            self.end()

    def command(self, *words: str) -> str:
        """Run the command `hpcnb`; what it says."""
        code = "from hpcnb.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=os.environ | self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout
