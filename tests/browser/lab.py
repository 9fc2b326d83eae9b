"""JupyterLab as one user has it, and a notebook in it as that user sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from tests.server.jupyter import START, Jupyter
from tests.site.account import until

OPTIONS = (
    "--LabApp.expose_app_in_browser=True",
    # What would ask the network, which tests do not have.
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)

CONNECTED = """status => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && (!status || kernel.status === status);
}"""

RECORD = """cell => {
    const history = cell.history = [];
    const note = () => {
        const area = cell.querySelector('.jp-OutputArea');
        const sight = {at: performance.now() / 1000, text: area.textContent, height: area.offsetHeight};
        if (sight.text && history.at(-1)?.text !== sight.text) history.push(sight);
    };
    new MutationObserver(note).observe(cell, {subtree: true, childList: true, characterData: true});
}"""


class Lab(Jupyter):
    """JupyterLab; see `Jupyter`.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        super().__init__(folder, "jupyterlab", [*OPTIONS, *options], port=port)

    def write(self, name: str, cells: tuple[str, ...]) -> Path:
        """Make a notebook with these cells."""
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        path = self.notebooks / f"{name}.ipynb"
        path.write_text(nbformat.writes(made))
        return path

    def open(self, page: Page, path: Path) -> Notebook:
        """Open one of its notebooks in a browser's page."""
        self.visit(page, path)
        return Notebook(page, path)

    def leave_panel_out(self) -> None:
        """Be without our own extension in the pages that are loaded from now on, as other front ends are."""
        config = self.folder / "jupyter_config_dir" / "labconfig" / "page_config.json"
        known = json.loads(config.read_text())
        known["disabledExtensions"]["hpcnb"] = True
        config.write_text(json.dumps(known))

    def visit(self, page: Page, path: Path) -> None:
        """Go to one of its notebooks."""
        page.goto(f"{self.url}lab/workspaces/{path.stem}/tree/{path.name}?token={self.token}")


class Notebook:
    """A notebook on a page, when its kernel is ready.

    Parameters
    ----------
    page : Page
    path : Path
        Where it is saved.
    """

    def __init__(self, page: Page, path: Path) -> None:
        self.path = path
        self.complaints: list[str] = []
        self.expected = re.compile("(?!)")
        """What the browser may complain of."""
        self._watch(page)

    def _watch(self, page: Page, status: str = "idle") -> None:
        self.page = page
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._complain(str(error)))
        self._panel = page.locator(".jp-NotebookPanel")
        page.wait_for_function(CONNECTED, arg=status, timeout=START * 1000)

    def open(self, lab: Lab, page: Page, status: str = "idle") -> None:
        """Open it anew, in another page, and wait until its kernel is known to be ready, or ``busy``."""
        lab.visit(page, self.path)
        self._watch(page, status)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._complain(message.text)

    def _complain(self, text: str) -> None:
        if not self.expected.search(text):
            self.complaints.append(text)

    def __getitem__(self, number: int) -> Cell:
        """One code cell; 0 is the first."""
        return Cell(self._panel.locator(".jp-CodeCell").nth(number))

    def __len__(self) -> int:
        return self._panel.locator(".jp-CodeCell").count()

    def run_all(self) -> None:
        """Choose Run All Cells."""
        self.page.get_by_text("Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()

    def interrupt(self) -> None:
        """Press the stop button."""
        self._panel.locator('[data-command="notebook:interrupt-kernel"]').click()

    def restart(self) -> None:
        """Restart the kernel, whatever it does; of what JupyterLab itself was asking it, JupyterLab may complain."""
        asked = "Canceled future for (kernel_info|debug)_request"
        self.expected = re.compile(f"{self.expected.pattern}|{asked}")
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")

    def save(self) -> None:
        """Press the save button."""
        before = self.path.stat().st_mtime_ns
        self._panel.locator('[data-command="docmanager:save"]').click()
        until(lambda: self.path.stat().st_mtime_ns > before)

    def reload(self) -> None:
        """Load the page anew, and wait until it has found its kernel again."""
        self.page.reload()
        self.page.wait_for_function(CONNECTED, timeout=START * 1000)

    def theme(self, name: str) -> None:
        """Choose a theme."""
        self.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-name", name)

    def picture(self, path: Path) -> None:
        """Take a picture of the whole notebook."""
        size = self.page.viewport_size
        scrolled = self._panel.locator(".jp-WindowedPanel-outer")
        height = scrolled.evaluate("outer => outer.scrollHeight") + 200
        self.page.set_viewport_size({"width": 1280, "height": height})
        scrolled.evaluate("outer => outer.scrollTo(0, 0)")
        self.page.screenshot(path=path)
        self.page.set_viewport_size(size)


class Cell:
    """A code cell on a page."""

    def __init__(self, found: Locator) -> None:
        self._found = found
        self.prompt = found.locator(".jp-InputPrompt")

    def record(self) -> None:
        """From now on, keep every sight of its output."""
        self._found.evaluate(RECORD)

    def history(self) -> list[dict[str, Any]]:
        """What its output looked like, in order: the time, the text and the height of each sight."""
        return self._found.evaluate("cell => cell.history")

    def run(self) -> Cell:
        """Press Shift-Enter in it."""
        self._found.locator(".cm-content").click()
        self._found.page.keyboard.press("Shift+Enter")
        expect(self.prompt).not_to_have_text("[ ]:")
        return self

    def wait(self, within: float = START) -> Cell:
        """Wait until it has ended."""
        expect(self.prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=within * 1000)
        return self

    def wait_for(self, text: str | re.Pattern[str], within: float = START) -> Cell:
        """Wait until its output contains a text."""
        expect(self._found.locator(".jp-OutputArea")).to_contain_text(text, timeout=within * 1000)
        return self

    def shows(self, *texts: str | re.Pattern[str]) -> Cell:
        """Wait until its outputs are exactly these."""
        expect(self.outputs()).to_have_text(texts)
        return self

    def outputs(self, kind: str = "") -> Locator:
        """Each of its outputs, or those of a kind (as a CSS selector)."""
        return self._found.locator(f".jp-OutputArea-output{kind}")

    @property
    def errors(self) -> list[str]:
        """What of its output is red."""
        return self.outputs('[data-mime-type="application/vnd.jupyter.stderr"]').all_inner_texts()

    @property
    def text(self) -> str:
        """All that its output says."""
        return self._found.locator(".jp-OutputArea").inner_text()

    @property
    def printed(self) -> str:
        """What it has printed, also where it is out of sight."""
        return "".join(self.outputs('[data-mime-type="application/vnd.jupyter.stdout"]').all_text_contents())

    def answer(self, question: str, answer: str) -> None:
        """Answer the question that is asked under it."""
        expect(self._found.locator(".jp-Stdin-prompt")).to_have_text(question, timeout=START * 1000)
        box = self._found.locator(".jp-Stdin-input")
        box.fill(answer)
        box.press("Enter")
