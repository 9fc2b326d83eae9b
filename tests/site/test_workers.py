"""`%%hpc --all-workers` and `-n` on a real Slurm, over a real sshd: cells in the workers of two nodes."""

from __future__ import annotations

import ast

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from hpcnb.sandbox import Sandbox
from tests.isolation import Isolation

pytestmark = [pytest.mark.site, pytest.mark.slow]

CELLS = [
    "%load_ext hpcnb\n%hpc up sandbox --nodes 2 --workers-per-node 1",
    "import hpcnb as hpc\nhpc.current().client.wait_for_workers(2, 60)\nfactor = 3",
    "%%hpc --all-workers -o node\nimport os\nnode = os.environ['SLURMD_NODENAME']\nk = factor\n!echo $SLURMD_NODENAME",
    "%%hpc -n n2 -o mine\nk += 1\nmine = node",
    "%%hpc -n 0 -o first\nfirst = node",
    "%%hpc --all-workers -o k\nk",
    "print((node, mine, first, k))",
    "%hpc down",
]


@pytest.mark.timeout(200)
def test_cells_run_on_the_nodes_that_are_meant(sandbox: Sandbox, isolated: Isolation) -> None:
    """In order of the nodes; what one cell binds there the next one finds; what is printed names the worker."""
    entry = sandbox.site_entry() | {"home": str(isolated.home)}
    isolated.configure(yaml.safe_dump({"hpcnb": {"sites": {"sandbox": entry}}}))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert ast.literal_eval(notebook.cells[6].outputs[0].text) == (["n1", "n2"], "n2", "n1", [3, 4])
    printed = "".join(output.text for output in notebook.cells[2].outputs if output.output_type == "stream")
    assert sorted(printed.splitlines()) == ["0-n1-0: n1", "0-n2-0: n2"]
    shown = [output.data["text/plain"] for output in notebook.cells[5].outputs]
    assert sorted(shown) == ["0-n1-0: 3", "0-n2-0: 4"]
