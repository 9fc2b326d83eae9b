"""A kernel, the agent or both are killed in the middle of everything: `hpc.attach()` in a new kernel brings all of it back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
from jupyter_client.manager import start_new_kernel

from tests.acceptance.conftest import Kernel
from tests.isolation import Isolation
from tests.unit.pilot.host import environment, wait_for

pytestmark = pytest.mark.slow

START = 60.0
"""Seconds that a cluster may take on a busy machine."""

WORK = """
import os, time
from pathlib import Path
def task(number):
    with open({folder!r} + "/ran", "a") as ran:
        print(number, file=ran, flush=True)
    while number and not os.path.exists({folder!r} + "/go"):
        time.sleep(0.05)
    if number == 6:
        raise ValueError("the sixth")
    return number * 10
done = hpc.submit(task, 0, tag="first")
done.result()
dropped = hpc.submit(abs, -7)
dropped.result()
del dropped
rest = hpc.map(task, range(1, 7), tag="rest")
"""


class Notebook(Kernel):
    """A kernel of a notebook, with a cluster on this machine."""

    def __init__(self, place: Isolation) -> None:
        self._cells = {}
        # Each is a new front end, as a page is that was opened anew.
        env = environment() | place.environ | {"JPY_SESSION_NAME": str(place.folder / "work.ipynb")}
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=env)
        self.run("%load_ext hpcnb\nimport hpcnb as hpc")

    @property
    def pid(self) -> int:
        return self.manager.provisioner.pid

    def kill(self) -> None:
        """End it by SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self.close()

    def restart(self) -> None:
        """Restart it as a user does."""
        self.manager.restart_kernel()
        self.client.wait_for_ready(timeout=START)
        self.run("%load_ext hpcnb\nimport hpcnb as hpc")

    def value(self, expression: str, timeout: float = START) -> object:
        """The value of an expression there."""
        cell = self.wait(self.send(f"print(repr({expression}))"), timeout)
        assert cell.reply["status"] == "ok", cell.outputs
        return eval(cell.text)


@pytest.fixture(scope="module")
def place(short_path):
    """Directories, agent and cluster of one user."""
    own = Isolation(short_path())
    yield own
    own.end()


@pytest.fixture
def notebook(place):
    """Start a kernel of the notebook; all of them have ended afterwards."""
    started = []

    def start():
        started.append(Notebook(place))
        return started[-1]

    yield start
    for kernel in started:
        if kernel.manager.has_kernel:
            kernel.close()


@pytest.fixture
def begun(place, notebook, tmp_path):
    """A kernel with one finished, one running and five queued futures; and one that it has dropped."""
    kernel = notebook()
    assert kernel.run("%hpc down --all").reply["status"] == "ok"
    up = kernel.wait(kernel.send("%hpc up --workers-per-node 1 --cores-per-worker 1"), START)
    assert up.reply["status"] == "ok", up.outputs
    work = kernel.wait(kernel.send(WORK.format(folder=str(tmp_path))), START)
    assert work.reply["status"] == "ok", work.outputs
    return kernel


def agent_pid(place):
    [agent] = place.agents()
    return agent.pid


def test_a_cell_after_a_restart_starts_nothing_beside_what_its_notebook_has(notebook, tmp_path):
    """It names the cluster that an earlier kernel has started, and what to type; that then goes on with the variables."""
    kernel = notebook()
    for line in ("%hpc down --all", "%hpc up --name mine --workers-per-node 1 --cores-per-worker 1", "%%hpc\nx = 5"):
        assert kernel.wait(kernel.send(line), START).reply["status"] == "ok"
    kernel.restart()
    for line in ("%%hpc\nx", "import hpcnb as hpc\nhpc.submit(abs, -1)"):
        reply = kernel.wait(kernel.send(line), START).reply
        assert (reply["status"], reply["ename"]) == ("error", "NotReady")
        said = "\n".join(reply["traceback"])
        assert "● mine on local: ready" in said
        assert "%hpc attach mine" in said
    assert kernel.value("[cluster.name for cluster in hpc.clusters()]") == ["mine"]
    kernel.run("%hpc attach mine")
    assert kernel.wait(kernel.send("%%hpc\nprint(x)"), START).text == "5\n"
    other = notebook()
    other.run("import os; os.environ['JPY_SESSION_NAME'] = 'other.ipynb'")
    assert other.wait(other.send("%%hpc --quiet\nprint(6)"), START).text == "6\n"
    kernel.run("%hpc down --all")


COUNT = """%%hpc
import os, time
number = 0
while not os.path.exists({folder!r} + "/go"):
    print("count", number, flush=True)
    number += 1
    time.sleep(0.02)
display(dict(last=number))
number
"""


def counted(text):
    """The numbers of the counter in a text."""
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("count ")]


def ran(folder):
    """Which tasks have begun, in order."""
    return [int(line) for line in (folder / "ran").read_text().split()]


def check_all_is_back(kernel, folder, attached):
    """Each task's result is there, each ran once, and the counter has no gap."""
    kernel.hear_until(lambda: len(counted(attached.text)) > 5)
    assert "runs ──\n   import os, time …\ncount 0\n" in attached.text
    listed = kernel.value("[(f.name, f.tag, f.state) for f in hpc.futures()]")
    assert listed == [("task", "first", "finished"), *[("task", "rest", "pending")] * 6]
    (folder / "go").touch()
    assert kernel.value("hpc.gather(hpc.futures()[:6])") == [0, 10, 20, 30, 40, 50]
    assert kernel.value("str(hpc.futures('rest')[5].exception())") == "the sixth"
    assert kernel.value("[(f.tag, f.state) for f in hpc.futures()][-1]") == ("rest", "failed")
    kernel.hear_until(lambda: "ended ok just now" in attached.text)
    number = kernel.value("cluster.session.pull(['number'])['number']")
    assert counted(attached.text) == list(range(number))
    shown = [content["data"]["text/plain"] for kind, content in attached.outputs if kind != "stream"]
    assert shown[-2:] == [f"{{'last': {number}}}", str(number)]
    assert sorted(ran(folder)) == list(range(7))
    assert "cell" not in kernel.run("%hpc attach").text.replace("cell [", "cell")


@pytest.mark.parametrize("killed", ["kernel", "agent", "both", "restart"])
def test_nothing_is_lost(begun, notebook, place, tmp_path, killed):
    """Futures finished, running and queued, and a cell that prints, go on without kernel and agent, and come back once."""
    # Jupyter interrupts a kernel that it restarts, and so the cell that the notebook waits for.
    how = "%%hpc --detach" if killed == "restart" else "%%hpc"
    counter = begun.send(COUNT.replace("%%hpc", how).format(folder=str(tmp_path)))
    begun.hear_until(lambda: len(counted(counter.text)) > 5)
    wait_for(lambda: ran(tmp_path) == [0, 1])
    if killed in ("agent", "both"):
        os.kill(agent_pid(place), signal.SIGKILL)
    if killed == "restart":
        begun.restart()
        again = begun
    else:
        begun.kill()
        again = notebook()
    attached = again.wait(again.send("cluster = hpc.attach()"), START)
    assert attached.reply["status"] == "ok", attached.outputs
    assert re.search(r"^7 futures \(1 finished, .*\); session main \(busy\)", attached.text)
    check_all_is_back(again, tmp_path, attached)


SCRIPT = """
import sys
import hpcnb as hpc
if sys.argv[1] == "begin":
    cluster = hpc.Cluster(workers_per_node=1, cores_per_worker=1, name="script")
    futures = hpc.use(cluster).client.map(abs, [-1, -2], pure=False)
    hpc.gather(futures)
    dropped = hpc.submit(abs, -3)
    dropped.result()
    del dropped
    sys.exit()
cluster = hpc.attach("script")
print([(future.name, future.state, future.result()) for future in hpc.futures()])
hpc.futures()[0].release()
print([future.result() for future in hpc.futures()])
cluster.close()
"""


def test_a_script_that_ends_leaves_its_futures(place, tmp_path):
    """Python's orderly end releases nothing; what was dropped before is gone; the script's next run finds the rest."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    said = ""
    for words in (["begin"], ["go on"]):
        command = [sys.executable, script, *words]
        env = os.environ | place.environ
        said = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=START).stdout
    assert said == "[('abs', 'finished', 1), ('abs', 'finished', 2)]\n[2]\n"


MORE = """
import threading, time
calls, enough = [], threading.Event()
def go_on():
    while not enough.wait(0.005):
        calls.append(hpc.submit(abs, len(calls)))
more = threading.Thread(target=go_on)
more.start()
"""


def test_a_kernel_that_stays_does_not_notice_the_agents_death(begun, place, tmp_path):
    """A cell that runs, a future that is waited for, and calls that are submitted meanwhile go on when the agent is killed."""
    assert begun.run(MORE).reply["status"] == "ok"
    counter = begun.send(COUNT.format(folder=str(tmp_path)))
    begun.hear_until(lambda: len(counted(counter.text)) > 5)
    for _ in range(2):
        os.kill(agent_pid(place), signal.SIGKILL)
        seen = len(counted(counter.text))
        begun.hear_until(lambda: len(counted(counter.text)) > seen + 50, START)  # noqa: B023 - waited for here
    (tmp_path / "go").touch()
    begun.wait(counter)
    assert counted(counter.text) == list(range(len(counted(counter.text))))
    assert counter.reply["status"] == "ok"
    assert begun.value("hpc.gather(rest[:5])") == [10, 20, 30, 40, 50]
    assert begun.value("len(hpc.wait(rest).done)") == 6
    assert begun.value("(enough.set(), more.join(), hpc.gather(calls) == list(range(len(calls))))[2]")
    assert begun.value("[f.state for f in hpc.futures() if f.name != 'abs']") == [*["finished"] * 6, "failed"]
    assert begun.value("done.result()") == 0
    assert ran(tmp_path) == [*range(7)]


def test_each_cell_is_a_block_in_order(begun, notebook, tmp_path):
    """What three cells printed in turns, with displays and an error, is three blocks, each whole; the next time nothing."""
    code = (
        "%%hpc --detach -s {0}\n"
        "import os, time\n"
        "from IPython.display import HTML, clear_output\n"
        "print('never seen'); clear_output()\n"
        "for i in range(10): print('{0}', i, flush=True); time.sleep(0.02)\n"
        "display(HTML('<b>{0}</b>'))\n"
        "while not os.path.exists('{1}/go'): time.sleep(0.02)\n"
        "print('{0}', 'late')\n"
        "1 / ('abc'.index('{0}') - 1)"
    )
    for name in "abc":  # a session for each, so that they run at the same time
        begun.run(f"%%hpc -s {name}\n1")
    begun.run("seen = get_ipython().run_cell_magic('hpc', '', \"print('seen to its end')\")")
    cells = []
    for name in "abc":  # the blocks are in the order in which the cells have begun
        cells.append(begun.send(code.format(name, tmp_path)))
        begun.hear_until(lambda name=name: f"{name} 0" in cells[-1].text)
    begun.hear_until(lambda: all(f"{name} 9" in cell.text for name, cell in zip("abc", cells, strict=True)))
    begun.kill()
    (tmp_path / "go").touch()
    again = notebook()
    again.run("hpc.use(hpc.clusters()[-1])")
    wait = "[c for c in s.wait(s.unseen('', 0)) if c['ended'] is None]"
    again.run(f"import time\ns = hpc.current().session\nwhile {wait}: time.sleep(0.05)")
    attached = again.wait(again.send("%hpc attach"), START)
    _, *blocks = re.split(r"^── ", attached.text, flags=re.MULTILINE)
    for name, block in zip("abc", blocks, strict=True):
        head, first, *lines = block.splitlines()
        how = "ended with an error" if name == "b" else "ended ok"
        assert re.fullmatch(rf"cell \[\d+\] in session {name}, {how} just now ──", head)
        assert first == "   import os, time …"
        assert lines == [*(f"{name} {i}" for i in range(10)), f"{name} late"]
    rich = [content["data"]["text/html"] for kind, content in attached.outputs if kind == "display_data"][1:]
    assert rich == [f"<b>{name}</b>" for name in "abc"]
    assert [content["ename"] for kind, content in attached.outputs if kind == "error"] == ["ZeroDivisionError"]
    assert attached.reply["status"] == "ok"
    assert "never seen" not in attached.text
    assert "──" not in again.run("%hpc attach").text
