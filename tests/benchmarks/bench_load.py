"""What `%load_ext hpcnb` costs in a fresh IPython."""

from __future__ import annotations

import subprocess
import sys

BUDGET = 0.150
"""Seconds."""

LOAD = """
import time
from IPython.testing.globalipapp import start_ipython
shell = start_ipython()
start = time.perf_counter()
shell.run_line_magic("load_ext", "hpcnb")
print(time.perf_counter() - start)
"""


def bench_load_ext() -> None:
    """Loading the extension takes less than 150 ms."""
    runs = [subprocess.run([sys.executable, "-c", LOAD], check=True, capture_output=True, text=True) for _ in range(5)]
    cost = min(float(run.stdout.split()[-1]) for run in runs)
    print(f"\n%load_ext hpcnb: {cost * 1e3:.1f} ms of the {BUDGET * 1e3:.0f} ms allowed")
    assert cost < BUDGET
