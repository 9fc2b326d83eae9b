"""Run a notebook without a browser: progress in the terminal, the result as HTML in `_output/`.

    python notebooks/run.py notebooks/quickstart.ipynb

Exit status 0 if every cell ran, 1 with the failing cell and its traceback otherwise.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from traitlets.config import Config

OUTPUT = Path(__file__).parent / "_output"
STYLING = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Screen:
    """The terminal: lines that stay, and on a real terminal one that changes."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()

    def keep(self, text: str) -> None:
        self.change("")
        print(text if self._live else STYLING.sub("", text), flush=True)

    def change(self, text: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{STYLING.sub('', text)[:width]}", end="", flush=True)


class Runner(NotebookClient):
    """Executes the cells in order and tells what they put out while they do."""

    def __init__(self, notebook: nbformat.NotebookNode, screen: Screen, **options: Any) -> None:
        super().__init__(notebook, **options)
        self.screen = screen
        self.at = ""
        self.on_cell_start = self._start
        self.on_cell_executed = self._end

    def _start(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        code = [index for index, other in enumerate(self.nb.cells) if other.cell_type == "code"]
        if cell_index not in code:
            return
        title = next((line for line in cell.source.splitlines() if line.strip()), "")
        self.at = f"[{code.index(cell_index) + 1}/{len(code)}] {title}"
        self.since = time.monotonic()
        self.screen.keep(self.at)

    def _end(self, cell: nbformat.NotebookNode, **_: Any) -> None:
        for output in cell.outputs:
            for line in said(output).splitlines()[-10:]:
                self.screen.keep(f"    {line}")
        if all(output.output_type != "error" for output in cell.outputs):
            self.screen.keep(f"    ✓ {time.monotonic() - self.since:.1f} s")

    def process_message(self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int) -> Any:
        """Show the last line of what a message brings, updates of a display included."""
        lines = said(msg["content"]).strip().splitlines()
        if lines:
            self.screen.change(f"    … {lines[-1]}")
        return super().process_message(msg, cell, cell_index)


def said(output: dict[str, Any]) -> str:
    """The text of a stream or of a display; the name of a picture is no text."""
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return "" if text.startswith("<Figure") else text


def save(notebook: nbformat.NotebookNode, name: str) -> Path:
    """Write the notebook with its outputs as one HTML file."""
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / f"{name}.html"
    html, _ = HTMLExporter().from_notebook_node(notebook, resources={"metadata": {"name": name}})
    path.write_text(html, encoding="utf-8")
    return path


def run(path: Path, timeout: int) -> int:
    """Run one notebook in its own folder; return the exit status."""
    screen = Screen()
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    status = 0
    # Sockets in a folder of our own instead of ports: other users of the machine cannot reach those.
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        config = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/k"})
        runner = Runner(notebook, screen, timeout=timeout, resources={"metadata": {"path": path.parent}}, config=config)
        try:
            runner.execute()
        except CellExecutionError as error:
            screen.keep(f"✗ {runner.at}\n{error.traceback}")
            status = 1
        except (CellTimeoutError, DeadKernelError) as error:
            screen.keep(f"✗ {runner.at}\n{error}")
            status = 1
    screen.keep(f"{'failed' if status else 'done'}: {save(notebook, path.stem)}")
    return status


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run notebooks without a browser.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=600, help="seconds that a cell may take (default: %(default)s)")
    arguments = parser.parse_args()
    return max(run(path, arguments.timeout) for path in arguments.notebooks)


if __name__ == "__main__":
    sys.exit(main())
