"""Cells that a test runs in a notebook's kernel."""

from __future__ import annotations

import re
import textwrap

from tests.acceptance.conftest import Executed, Kernel


def run(notebook: Kernel, code: str) -> Executed:
    """Run a cell that succeeds."""
    cell = notebook.run(textwrap.dedent(code))
    assert cell.reply["status"] == "ok", cell.outputs
    return cell


def plain(cell: Executed) -> str:
    """The traceback that a page shows, without its colours."""
    return re.sub("\x1b.*?m", "", "\n".join(cell.reply["traceback"]))
