"""The name under which a notebook is known: by it a later kernel finds what an earlier one has left."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["notebook_name", "shell"]


def notebook_name() -> str:
    """The name under which this notebook is known: the same in each of its kernels.

    It is the notebook's path where the front end tells it (Jupyter's servers and VS Code do), else the directory in which
    the kernel started, else the script's path. There is no host in it: a cluster can be reached only from where its
    agent has its records, and a pod on a JupyterHub is called otherwise each day.
    """
    running = shell()
    space = running.user_ns if running is not None else {}
    told = os.environ.get("JPY_SESSION_NAME") or space.get("__vsc_ipynb_file__")
    if told:
        # VS Code adds a mark of its own, another one each time.
        return re.sub(r"-jvsc-[0-9a-f-]+(?=\.ipynb$|$)", "", str(told))
    if history := space.get("_dh"):
        return str(history[0])
    script = getattr(sys.modules["__main__"], "__file__", None)
    return str(Path(script).resolve()) if script else str(Path.cwd())


def shell() -> Any:
    """The IPython that runs us, or None."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
