"""A whole notebook on a compute node: a kernel in an allocation, over a real sshd, driven as front ends do it."""

from __future__ import annotations

import json
import signal

import jupyter_kernel_test
import pytest
from jupyter_client.manager import KernelManager

from tests.site.account import jobs, slurm, until

pytestmark = [pytest.mark.site, pytest.mark.slow]

TITLE = "Python on octopus · 1 core · 10 m"
WAIT = 60.0


class Driven:
    """A kernel and who drives it, in one process."""

    def __init__(self, name):
        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT)

    def begin(self, code, **options):
        """Send a cell."""
        return self.client.execute(code, **options)

    def control(self, kind, content):
        """Send a request on the control channel."""
        self.client.control_channel.send(self.client.session.msg(kind, content))

    def features(self):
        """What it says that it can do."""
        return self.client.kernel_info(reply=True, timeout=WAIT)["content"]["supported_features"]

    def hear(self, cell, condition):
        """Take what a cell says until something of it satisfies a condition; all that it said."""
        heard = []
        while not heard or not condition(heard[-1]):
            message = self.client.get_iopub_msg(timeout=WAIT)
            if message["parent_header"].get("msg_id") == cell:
                heard.append(message)
        return heard

    def end(self, cell):
        """Wait for the end of a cell; what it printed, its errors, and its reply."""
        heard = self.hear(cell, lambda m: m["content"].get("execution_state") == "idle")
        reply = self.client.get_shell_msg(timeout=WAIT)
        while reply["parent_header"]["msg_id"] != cell:
            reply = self.client.get_shell_msg(timeout=WAIT)
        text = "".join(m["content"]["text"] for m in heard if m["msg_type"] == "stream")
        return text, [m["content"] for m in heard if m["msg_type"] == "error"], reply["content"]

    def run(self, code):
        """Run a cell; what it printed."""
        text, errors, reply = self.end(self.begin(code))
        assert reply["status"] == "ok", errors
        return text


@pytest.fixture(scope="module")
def octopus(account, sandbox):
    """The sandbox as a site called octopus, and two kernels for it: one whose jobs wait until somebody lets them begin."""
    account.sites(octopus=sandbox.site_entry())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(account.folder / "jupyter"))
        asked = ("octopus", "--cores-per-node", "1", "--walltime", "10m")
        said = account.run("kernel", "install", *asked, "--name", "waits", "--option=--begin=now+3600")
        assert said.out == f"waits: {TITLE}\n", said.err
        yield sandbox


@pytest.fixture(scope="module")
def kernel(octopus):
    """A kernel whose job waits at first."""
    driven = Driven("waits")
    yield driven
    driven.client.stop_channels()
    driven.manager.shutdown_kernel(now=True)


def let_begin(site):
    (job,) = jobs(site)
    slurm(site, "scontrol", "update", f"JobId={job}", "StartTime=now")


def test_the_command_lists_and_removes_kernels(account, octopus):
    """`hpcnb kernel` makes kernelspecs, lists and removes them, and touches no others."""
    made = account.run("kernel", "install", "octopus", "--nodes", "2", "--memory-per-node", "1GiB", "--walltime", "90m")
    assert (
        made.out == "hpcnb-octopus-2-nodes-1-gib-each-1-h-30-m: Python on octopus · 2 nodes · 1 GiB each · 1 h 30 m\n"
    )
    listed = {one["name"]: one for one in json.loads(account.run("kernel", "list", "--json").out)}
    assert listed["waits"]["title"] == TITLE
    assert set(listed) == {"waits", "hpcnb-octopus-2-nodes-1-gib-each-1-h-30-m"}
    assert account.run("kernel", "remove", "hpcnb-octopus-2-nodes-1-gib-each-1-h-30-m").status == 0
    assert "waits  Python on octopus" in account.run("kernel", "list").out
    refused = account.run("kernel", "remove", "python3")
    assert (refused.status, "Those there are: waits" in refused.err) == (1, True)
    assert "none of ours" in account.run("kernel", "install", "octopus", "--name", "python3").err
    assert "'nowhere'" in account.run("kernel", "install", "nowhere").err


def test_a_kernel_whose_job_waits(kernel, octopus):
    """It is alive, says under the cell what it waits for, gives the cell up when interrupted, and runs it when the job begins.

    What it says of itself it can do then, and what was asked of that in the meantime is answered.
    """
    claimed = kernel.features()
    kernel.control("create_subshell_request", {})
    kernel.control("debug_request", {"type": "request", "seq": 1, "command": "debugInfo", "arguments": {}})
    first = kernel.begin("print('never')")
    shown = kernel.hear(first, lambda m: "BeginTime" in str(m["content"].get("data", "")))[-1]
    assert "octopus: queued" in shown["content"]["data"]["text/plain"]
    assert kernel.manager.is_alive()
    second = kernel.begin("print('neither')")
    kernel.hear(
        second, lambda m: m["content"].get("execution_state") == "busy"
    )  # an interrupt goes another way, and may be faster
    kernel.manager.interrupt_kernel()
    for cell in (first, second):
        _, errors, reply = kernel.end(cell)
        assert reply["status"] == "error"
        assert [error["ename"] for error in errors] == ["KeyboardInterrupt"]
    third = kernel.begin("get_ipython().Completer.use_jedi = False; print(6 * 7)")  # jedi takes seconds to start
    kernel.hear(third, lambda m: m["msg_type"] == "display_data")
    let_begin(octopus)
    text, _, reply = kernel.end(third)
    assert (text, reply["status"]) == ("42\n", "ok")
    made, told = (kernel.client.get_control_msg(timeout=WAIT)["content"] for _ in range(2))
    assert (made["status"], told["success"]) == ("ok", True)
    assert kernel.features() == claimed == ["kernel subshells", "debugger"]


class TestJupyter(jupyter_kernel_test.KernelTests):
    """Jupyter's own tests of kernels."""

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    code_execute_result = [{"code": "6 * 7", "result": "42"}, {"code": "1+2+3", "result": "6"}]  # noqa: RUF012
    code_display_data = [  # noqa: RUF012
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"}
    ]
    completion_samples = [{"text": "zi", "matches": {"zip"}}]  # noqa: RUF012
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]  # noqa: RUF012
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]  # noqa: RUF012
    invalid_code_samples = ["import = 7q"]  # noqa: RUF012
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")  # as IPython has them

    @pytest.fixture(autouse=True)
    def _shared(self, kernel):
        self.km, self.kc = kernel.manager, kernel.client

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass


def test_questions_and_widgets(kernel):
    """`input()` asks who sent the cell, and what is told to a widget arrives there, with its buffers."""
    cell = kernel.begin("print('Ada' == input('Who? '))", allow_stdin=True)
    assert kernel.client.get_stdin_msg(timeout=WAIT)["content"]["prompt"] == "Who? "
    kernel.client.input("Ada")
    assert kernel.end(cell)[0] == "True\n"
    cell = kernel.begin(
        "from comm import create_comm\n"
        "told = []\ncomm = create_comm('test', buffers=[bytes(1000)])\n"
        "comm.on_msg(lambda message: told.append((message['content']['data'], bytes(message['buffers'][0]))))"
    )
    opened = kernel.hear(cell, lambda m: m["msg_type"] == "comm_open")[-1]
    assert bytes(opened["buffers"][0]) == bytes(1000)
    kernel.end(cell)
    message = kernel.client.session.msg("comm_msg", {"comm_id": opened["content"]["comm_id"], "data": {"value": 7}})
    message["buffers"] = [b"\x00\xff" * 1000]
    kernel.client.session.send(kernel.client.shell_channel.socket, message, buffers=message["buffers"])
    assert kernel.run("print(told == [({'value': 7}, b'\\x00\\xff' * 1000)])") == "True\n"


def test_interrupt(kernel):
    """A cell that runs is interrupted, with what it has started, and the next one runs."""
    cell = kernel.begin("import subprocess, time; print(1, flush=True); subprocess.run(['sleep', '600'])")
    kernel.hear(cell, lambda m: m["msg_type"] == "stream")
    kernel.manager.interrupt_kernel()
    _, errors, _ = kernel.end(cell)
    assert [error["ename"] for error in errors] == ["KeyboardInterrupt"]
    assert kernel.run("print('again')") == "again\n"


def test_much_output_is_not_cut(kernel):
    """A hundred thousand lines arrive, all of them and in order."""
    assert kernel.run("for i in range(100_000): print(i)") == "".join(f"{i}\n" for i in range(100_000))


def test_the_agent_is_killed_in_the_middle_of_a_cell(kernel, account):
    """Every connection is gone with it; another agent takes over, and of the cell's output nothing is missing or there twice."""
    cell = kernel.begin("import time\nfor i in range(60): time.sleep(0.05); print(i, flush=True)")
    before = kernel.hear(cell, lambda m: m["msg_type"] == "stream")
    (agent,) = account.agents()
    agent.kill()
    meanwhile = kernel.begin("print('meanwhile')")
    text, _, reply = kernel.end(cell)
    text = "".join(m["content"]["text"] for m in before if m["msg_type"] == "stream") + text
    assert (reply["status"], text) == ("ok", "".join(f"{i}\n" for i in range(60)))
    assert kernel.end(meanwhile)[0] == "meanwhile\n"


def test_restart_keeps_the_job(kernel, octopus):
    """A restart gives a new kernel in the same job; a kernel that dies says how, and lives again after a restart."""
    before = jobs(octopus)
    kernel.run("import os; kept = 1")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=WAIT)
    assert kernel.run("print('kept' in globals())") == "False\n"
    _, errors, reply = kernel.end(kernel.begin("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert reply["status"] == "error"
    assert "killed by SIGKILL" in errors[0]["evalue"]
    until(lambda: not kernel.manager.is_alive())
    assert kernel.manager.provisioner._kernel.code == -signal.SIGKILL
    kernel.manager.restart_kernel(now=True)  # as Jupyter's restarter does it
    kernel.client.wait_for_ready(timeout=WAIT)
    assert kernel.run("print('kept' in globals())") == "False\n"
    assert jobs(octopus) == before


def test_a_job_that_ends_says_why(kernel, octopus):
    """The cell that ran fails with the cause; so do later ones, without another job, until the user restarts the kernel."""
    cell = kernel.begin("import time; print(1, flush=True); time.sleep(600)")
    kernel.hear(cell, lambda m: m["msg_type"] == "stream")
    slurm(octopus, "scancel", *jobs(octopus))
    assert "cancelled" in kernel.end(cell)[1][0]["evalue"]
    assert "cancelled" in kernel.end(kernel.begin("1"))[1][0]["evalue"]
    assert kernel.manager.is_alive()
    until(lambda: jobs(octopus) == [])
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=WAIT)
    assert len(jobs(octopus)) == 1


def test_shutdown_ends_the_job(kernel, account, octopus):
    """With the kernel's shutdown, here while its job waits, the job ends, and nothing is left."""
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()
    until(lambda: jobs(octopus) == [])
    until(lambda: account.clusters() == [])  # Slurm knows of the end before the agent does
