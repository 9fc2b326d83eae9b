"""JupyterLab as one user has it, and a notebook in it as that user sees it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import ConsoleMessage, Locator, Page

from tests.site.account import Account, until

START = 60.0
"""Seconds that a server, a page or a kernel may take to come up on a busy machine."""
SLACK = 1.0
"""Seconds between something that happened and its sight in a busy browser."""

RECORD = """cell => {
    const history = [];
    const note = () => {
        const area = cell.querySelector('.jp-OutputArea');
        const text = area ? area.textContent : '';
        if (!history.length || history.at(-1).text !== text)
            history.push({at: performance.now() / 1000, text, height: area ? area.offsetHeight : 0});
    };
    new MutationObserver(note).observe(cell, {subtree: true, childList: true, characterData: true});
    cell.history = history;
}"""


IDLE = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""


class Lab:
    """A JupyterLab server of an account, on a loopback port that the kernel chooses.

    Parameters
    ----------
    account : Account
        Its places hold all that Jupyter writes, too.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.notebooks = account.folder / "notebooks"
        self._token = secrets.token_hex(16)
        jupyter = account.folder / "jupyter"
        places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        environ = {name: str(jupyter / name.lower()) for name in places}
        for folder in (self.notebooks, jupyter, *map(Path, environ.values())):
            folder.mkdir(mode=0o700)
        wishes = [
            "--ServerApp.port=0",
            f"--ServerApp.root_dir={self.notebooks}",
            "--LabApp.expose_app_in_browser=True",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
        ]
        settings = jupyter / "jupyter_config_dir/lab/user-settings/@jupyterlab/apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
        self._log = (account.folder / "lab.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", *["--allow-root"] * (os.getuid() == 0), *wishes],
            env=os.environ | account.environ | environ | {"JUPYTER_TOKEN": self._token},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        known = jupyter / "jupyter_runtime_dir" / f"jpserver-{self._process.pid}.json"
        until(lambda: self._process.poll() is not None or known.exists(), within=START)
        assert self._process.poll() is None, (account.folder / "lab.log").read_text()
        self._url = until(lambda: json.loads(known.read_text() or "{}"))["url"]

    def open(self, page: Page, name: str, *cells: str, path: Path | None = None) -> Notebook:
        """Open a notebook with these cells, or a copy of one, in a browser's page."""
        there = self.notebooks / f"{name}.ipynb"
        if path is None:
            made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
            made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
            there.write_text(nbformat.writes(made))
        else:
            there.write_bytes(path.read_bytes())
        page.goto(f"{self._url}lab/workspaces/{name}/tree/{there.name}?token={self._token}")
        return Notebook(page, there)

    def close(self) -> None:
        """Stop the server, and with it its kernels."""
        self._process.terminate()
        self._process.wait(START)
        self._log.close()


class Notebook:
    """A notebook on a page.

    Parameters
    ----------
    page : Page
    path : Path
        Where it is saved.
    """

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.path = path
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.panel = page.locator(".jp-NotebookPanel")
        self.wait_until_idle()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def wait_until_idle(self) -> None:
        """Wait for the kernel."""
        self.page.wait_for_function(IDLE, timeout=START * 1000)

    def cells(self) -> list[Cell]:
        """The code cells, from the top."""
        return [Cell(found) for found in self.panel.locator(".jp-CodeCell").all()]

    def cell(self, number: int) -> Cell:
        """One code cell; 0 is the first."""
        return Cell(self.panel.locator(".jp-CodeCell").nth(number))

    def menu(self, *words: str) -> None:
        """Choose an item of a menu."""
        first, *others = words
        self.page.locator(".lm-MenuBar-itemLabel", has_text=first).click()
        for word in others:
            self.page.locator(".lm-Menu-itemLabel", has_text=word).first.click()

    def interrupt(self) -> None:
        """Press the stop button."""
        self.panel.locator('[data-command="notebook:interrupt-kernel"]').click()

    def save(self) -> dict[str, Any]:
        """Save it, and return what is in the file."""
        self.page.keyboard.press("Control+s")
        return json.loads(self.path.read_text())


class Cell:
    """A code cell on a page."""

    def __init__(self, found: Locator) -> None:
        self._found = found

    def record(self) -> None:
        """From now on, keep every sight of its output."""
        self._found.evaluate(RECORD)

    def history(self) -> list[dict[str, Any]]:
        """What its output looked like, in order: each text once, with its time and its height."""
        return self._found.evaluate("cell => cell.history")

    def run(self) -> None:
        """Press Shift-Enter in it."""
        self._found.locator(".cm-content").click()
        self._found.page.keyboard.press("Shift+Enter")

    def wait(self, within: float = START) -> Cell:
        """Wait until it has a number instead of a star."""
        number = self._found.locator(".jp-InputPrompt", has_text=r"[").filter(has_not_text="*")
        number.filter(has_not_text="[ ]").wait_for(timeout=within * 1000)
        return self

    @property
    def outputs(self) -> Locator:
        """Each of its outputs."""
        return self._found.locator(".jp-OutputArea-output")

    @property
    def text(self) -> str:
        """All that its output says."""
        return self._found.locator(".jp-OutputArea").first.inner_text() if self.outputs.count() else ""
