"""The examination of a site in a notebook: one output that grows, a report as a value, and an interrupt."""

from __future__ import annotations

import socket
import time

import pytest
from jupyter_client.manager import start_new_kernel

from tests.acceptance.conftest import Kernel
from tests.unit.pilot.host import environment

pytestmark = pytest.mark.slow

PROMPT = 5.0
"""Seconds within which an interrupt has ended it."""


@pytest.fixture
def notebook(isolated, tmp_path):
    """A notebook's kernel without a cluster."""
    notebook = Kernel.__new__(Kernel)
    notebook._cells = {}
    notebook.manager, notebook.client = start_new_kernel(
        kernel_name="python3", env=environment() | isolated.environ, cwd=str(tmp_path)
    )
    notebook.run("%load_ext hpcnb\nimport hpcnb as hpc")
    yield notebook
    notebook.close()


def shown(cell):
    """The HTML of a cell's displays, in order."""
    return [content["data"]["text/html"] for kind, content in cell.outputs if kind.endswith("display_data")]


def test_the_magic_shows_one_output_that_grows(notebook):
    """A row for each finding as soon as it is known; how it stands, in the end."""
    cell = notebook.run("%hpc doctor")
    assert cell.reply["status"] == "ok", cell.outputs
    assert {kind for kind, _ in cell.outputs} == {"display_data", "update_display_data"}
    assert len({content["transient"]["display_id"] for _, content in cell.outputs}) == 1
    *growing, last = shown(cell)
    assert [html.count("<tr") for html in growing] == [*range(8)]
    assert not any("is ready" in html for html in growing)
    assert "local is ready: `%hpc up local` starts a cluster" in last
    text = cell.outputs[-1][1]["data"]["text/plain"]
    assert [line[0] for line in text.splitlines()[:-1]] == ["✓"] * 7


def test_a_report_is_a_value(notebook, isolated):
    """`hpc.doctor` gives what can be asked and shown, and prints nothing; a failure is no error."""
    isolated.configure("hpcnb: {sites: {octopus: {batch: process, python: /nonexistent/python}}}")
    cell = notebook.run("report = hpc.doctor('octopus')\nreport")
    ((kind, content),) = cell.outputs
    assert kind == "execute_result"
    assert "there is no Python at &#x27;/nonexistent/python&#x27;" in content["data"]["text/html"]
    assert "✗ Python        there is no Python" in content["data"]["text/plain"]
    asked = "print(report.ok, [f.name for f in report.findings if f.verdict == 'failed'], hpc.doctor().ok)"
    assert notebook.run(asked).text == "False ['Python'] True\n"


def test_an_interrupt_ends_it(notebook, isolated):
    """While a site is silent the cell ends at once, and the agent lets go of the site."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = isolated.folder / "ssh_config"
        config.write_text(f"Host far\n  HostName 127.0.0.1\n  Port {silent.getsockname()[1]}\n")
        isolated.configure(f"hpcnb: {{sites: {{far: {{host: far, ssh-config: {config}}}}}}}")
        cell = notebook.send("%hpc doctor far")
        connection, _ = silent.accept()
        began = time.monotonic()
        notebook.manager.interrupt_kernel()
        notebook.wait(cell)
        assert time.monotonic() - began < PROMPT
        assert cell.error[0] == "KeyboardInterrupt"
        assert "not all was looked at" in shown(cell)[-1]
        with connection:
            connection.settimeout(PROMPT * 4)
            while connection.recv(1000):
                pass
    assert notebook.run("print(hpc.doctor('local').ok)").text == "True\n"
