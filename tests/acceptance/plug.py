"""`%%hpc` in a test's kernel, connected directly to a session host."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from IPython import get_ipython

from hpcnb.notebook.cells import run_cell
from hpcnb.session import Session
from tests.unit.pilot.host import security


def plug(address: str, run_dir: str) -> None:
    """Register the magic."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    shell, believed = get_ipython(), security(Path(run_dir))
    sessions = {}

    def session_for(options):
        name = options.session
        if name not in sessions:
            sessions[name] = Session(address, security=believed, loop=loop, name=name)
        return sessions[name]

    def hpc(line, cell):
        return run_cell(shell, line, cell, session_for)

    shell.register_magic_function(hpc, "cell", "hpc")
