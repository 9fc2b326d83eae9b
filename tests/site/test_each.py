"""`%%hpc --each` on a real Slurm, over a real sshd: elements on both nodes of a cluster."""

from __future__ import annotations

import ast

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from hpcnb.sandbox import Sandbox
from tests.isolation import Isolation

pytestmark = [pytest.mark.site, pytest.mark.slow]

BODY = """%%hpc --each "k in range(6)" -o "names,nodes"
import os, time
time.sleep(1)
names, nodes = name(k), os.environ["SLURMD_NODENAME"]
print(names)
"""
CELLS = [
    "%load_ext hpcnb\n%hpc up sandbox --nodes 2 --workers-per-node 1",
    "import hpcnb as hpc\nhpc.current().client.wait_for_workers(2, 60)\ndef name(k): return f'element {k}'",
    BODY,
    "print((names, sorted(set(nodes))))",
    "%hpc down",
]


@pytest.mark.timeout(200)
def test_elements_run_on_all_nodes(sandbox: Sandbox, isolated: Isolation) -> None:
    """More of them than workers: values come in order, what they print is under the cell."""
    entry = sandbox.site_entry() | {"home": str(isolated.home)}
    isolated.configure(yaml.safe_dump({"hpcnb": {"sites": {"sandbox": entry}}}))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    names, nodes = ast.literal_eval(notebook.cells[3].outputs[0].text)
    assert names == [f"element {k}" for k in range(6)]
    assert nodes == ["n1", "n2"]
    printed = "".join(output.text for output in notebook.cells[2].outputs if output.output_type == "stream")
    assert sorted(line.partition(": ")[2] for line in printed.splitlines()) == names
