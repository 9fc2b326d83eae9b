"""The session host: a real process with real kernels, spoken to over TLS."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpcnb.errors import CannotSerialize, HPCError, NotReady, TaskError, TaskLost
from hpcnb.pilot.rpc import Peer
from hpcnb.session import Running, Session
from tests.unit.pilot.host import HostProcess, connected, make_run_dir, security, wait_for
from tests.unit.pilot.tiny import gone


class Output:
    """What the messages of a cell say."""

    def __init__(self) -> None:
        self.messages = []

    def __call__(self, message):
        self.messages.append(message)

    @property
    def text(self):
        return "".join(m.content["text"] for m in self.messages if m.type == "stream")

    @property
    def kinds(self):
        return [m.type for m in self.messages]


def run(session, code, **more):
    """Run a cell; its reply and its output."""
    output = Output()
    return session.wait(session.execute(code, on_message=output, **more), 30), output


def start(session, code, **more):
    """Start a cell."""
    output = Output()
    cell = Running(code=code, count=1, on_message=output, **more)
    session.wait(session.submit(cell))
    return cell, output


# -- cells -----------------------------------------------------------------------------------------------------------


def test_a_cell_runs_with_the_notebooks_count(session):
    """The result carries the count, and so does Out."""
    reply, output = run(session, "6 * 7", count=12)
    assert reply.status == "ok"
    assert [(m.type, m.content["execution_count"], m.content["data"]) for m in output.messages] == [
        ("execute_result", 12, {"text/plain": "42"})
    ]
    assert run(session, "print(Out, In[12], len(In))", count=20)[1].text == "{12: 42} 6 * 7 21\n"


def test_an_error_comes_with_its_traceback_and_the_exception(session):
    """The reply has what a notebook needs to raise it again."""
    reply, output = run(session, "def f():\n    raise KeyError('k')\nf()", count=3)
    assert (reply.status, reply.ename, reply.evalue) == ("error", "KeyError", "'k'")
    assert output.kinds == ["error"]
    assert tuple(output.messages[0].content["traceback"]) == reply.traceback
    assert "In[3]" in "".join(reply.traceback)
    assert reply.exception


def test_the_same_cell_is_run_once_however_often_it_is_sent(session):
    """A request whose answer was lost can be repeated."""
    run(session, "n = 0")
    cell = Running(code="n += 1; print(n)", count=1, on_message=Output())
    for _ in range(3):
        assert session.wait(session.submit(cell)) == []
    assert cell.reply.result(30).status == "ok"
    assert session.pull(["n"]) == {"n": 1}


def test_what_is_missing_is_told_and_nothing_is_run(session):
    """A cell whose names the session lacks is not queued; with the values it is."""
    cell = Running(code="print(a + b)", count=1, on_message=(output := Output()))
    session.push({"a": 1})
    assert session.wait(session.submit(cell, needs=["a", "b"])) == ["b"]
    from hpcnb.pilot.values import pack

    assert session.wait(session.submit(cell, names=["a", "b"], frames=pack({"a": 5, "b": 10}))) == []
    assert cell.reply.result(30).status == "ok"
    assert output.text == "11\n"


def test_a_question_about_names_is_answered_while_a_cell_runs(session):
    """The session's names can be asked for at any time."""
    session.push({"x": 1})
    cell, _ = start(session, "import time; time.sleep(1000)")
    assert session.missing(["x", "y"]) == ["y"]
    session.interrupt()
    assert cell.reply.result(30).ename == "KeyboardInterrupt"


def test_cells_run_in_the_order_in_which_they_were_sent(session):
    """Many cells at once are one after another, each with its own output."""
    run(session, "order = []")
    sent = [start(session, f"order.append({n}); print({n})") for n in range(20)]
    assert [cell.reply.result(20).status for cell, _ in sent] == ["ok"] * 20
    assert [output.text for _, output in sent] == [f"{n}\n" for n in range(20)]
    assert session.pull(["order"])["order"] == list(range(20))


def test_output_of_a_thread_goes_to_the_cell_that_started_it(session):
    """Also when that cell has ended and another one runs."""
    first, output = start(
        session,
        "import threading, time\nwake = threading.Event()\n"
        "t = threading.Thread(target=lambda: (wake.wait(), print('from the thread')))\nt.start()",
    )
    first.reply.result(30)
    _, second = run(session, "wake.set(); t.join(); print('from the cell')")
    wait_for(lambda: "thread" in output.text + second.text)
    assert "from the cell" in second.text


def test_a_child_s_last_words_belong_to_its_cell(session):
    """What subprocesses write is there before the reply, every time, and no character is broken."""
    run(session, "import subprocess")
    word = "ü" * 700
    for _ in range(20):
        _, output = run(session, f"subprocess.run(['printf', '%s%s', '{word}', '{word}']);")
        assert output.text == 2 * word


def test_a_forked_child_s_output_arrives(session):
    """What a forked child prints is output of the cell, over no port."""
    _, output = run(
        session,
        "import multiprocessing as mp\np = mp.get_context('fork').Process(target=print, args=['forked'])\n"
        "p.start(); p.join(); print(p.exitcode)",
    )
    assert sorted(output.text.split()) == ["0", "forked"]


def test_the_kernel_opens_no_port(session):
    """Everything goes over unix sockets in a private directory."""
    pid = int(run(session, "import os; print(os.getpid())")[1].text)
    assert [c for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    sockets = [c.laddr for c in psutil.Process(pid).net_connections("unix") if c.laddr]
    assert sockets
    directory = Path(sockets[0]).parent
    assert stat.S_IMODE(directory.stat().st_mode) & 0o777 == 0o700
    assert all(len(path) < 108 for path in sockets)


def test_history_is_not_kept_on_disk(session):
    """Counts of several notebooks meet in a session; IPython's history database would complain in the output."""
    for count in (5, 5, 2, 5):
        reply, output = run(session, "1;", count=count)
        assert (reply.status, output.messages) == ("ok", [])
    assert run(session, "get_ipython().history_manager.enabled")[1].messages[0].content["data"]["text/plain"] == "False"


def test_libraries_see_a_notebook(session):
    """What libraries look at to know a notebook is as in any notebook."""
    code = "import sys; ip = get_ipython(); print(type(ip).__name__, type(sys.stdout).__module__, 'IPKernelApp' in ip.config)"
    assert run(session, code)[1].text == "ZMQInteractiveShell ipykernel.iostream True\n"


def test_an_interrupt_that_python_swallows_is_repeated(session):
    """In a destructor, or in a callback of the fork that starts a child, an exception is ignored; the cell ends all the same."""
    cell, output = start(
        session,
        "class Trap:\n    def __del__(self):\n        print('begun', flush=True)\n        while True: pass\n"
        "trap = Trap()\ndel trap\nimport time\ntime.sleep(1000)",
    )
    wait_for(lambda: output.text)
    session.interrupt()
    assert cell.reply.result(30).ename == "KeyboardInterrupt"
    assert output.text == "begun\n"


def test_an_interrupt_that_comes_just_before_a_wait_ends_it(session):
    """Python looks for signals before it begins to wait; one that is noted after that look ends the wait all the same."""
    cell, output = start(
        session,
        "import signal, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # another thread gets it: noted, nothing ends the wait\n"
        "print('begun', flush=True)\n"
        "try:\n    time.sleep(1000)\nfinally:\n    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])",
    )
    wait_for(lambda: output.text)
    session.interrupt()
    assert cell.reply.result(30).ename == "KeyboardInterrupt"


def test_nonsense_on_a_channel_silences_nobody(session):
    """What a cell sends past Jupyter, or half a message that an interrupt has left, is skipped; what comes next is heard."""
    forged = "[b'<IDS|MSG>', b'forged', b'{}', b'{}', b'{}', b'{}']"
    code = "kernel = get_ipython().kernel\n"
    code += "shell = kernel.shell_channel_thread.manager.get_subshell_to_shell_channel_socket(None)\n"
    for nonsense in ("[b'no delimiter']", "[b'<IDS|MSG>']", forged):
        code += f"kernel.iopub_socket.send_multipart({nonsense})\n"
        code += f"shell.send_multipart([*kernel._parent_ident['shell'], *{nonsense}])\n"
    assert run(session, code + "print('sent')")[1].text == "sent\n"
    reply, output = run(session, "print('heard')")
    assert (reply.status, output.text) == ("ok", "heard\n")


# -- variables -------------------------------------------------------------------------------------------------------


def test_errors_of_variables_name_them(session):
    """What does not exist, cannot travel, or cannot be rebuilt is named."""
    with pytest.raises(TaskError, match="the session has no nowhere"):
        session.pull(["nowhere"])
    run(session, "gen = (i for i in [])")
    with pytest.raises(CannotSerialize, match=r"gen \(generator\)"):
        session.pull(["gen"])
    from hpcnb.pilot.values import dump

    frames = dump({"thing": 1})
    frames[0] = b"\x80\x05cno_such_module\nThing\n."
    cell = Running(code="thing", count=1, on_message=Output())
    session.wait(session.submit(cell, names=["thing"], frames=frames))
    reply = cell.reply.result(30)
    assert isinstance(reply.error, CannotSerialize)
    assert "thing cannot be rebuilt in the session: ModuleNotFoundError" in str(reply.error)


def test_values_of_a_cell_are_those_of_its_end(session):
    """What a cell brings back is as it was before the next cell ran."""
    cells = [start(session, f"x = {n}", out=["x"])[0] for n in range(3)]
    from hpcnb.pilot.values import unpack

    for n, cell in enumerate(cells):
        assert cell.reply.result(30).has_values
        assert unpack(session.wait(session.collect(cell.id))) == {"x": n}
    with pytest.raises(TaskLost, match="no longer kept"):
        session.wait(session.collect(cells[0].id))


# -- readers ---------------------------------------------------------------------------------------------------------


def again(host, loop, own, **sender):
    """The same session, as another kernel of the notebook has it."""
    later = Session(host.address, security=security(host.run_dir), loop=loop, name=own.name)
    later._sender = {**later._sender, "kernel": "another", **sender}
    return later


async def followed(session, cell_id):
    """All messages of a cell, to its end."""
    return [message async for message in session.follow(cell_id)]


def test_what_was_not_read_comes_back_to_the_next_kernel(host, loop, own, tmp_path):
    """It is told of the cell that the lost kernel had not read to its end, and gets the whole of it, once, while it runs."""
    run(own, "print('read')")
    go = tmp_path / "go"
    code = "import os, time\nfor i in range(20):\n    print(i, flush=True)\n    time.sleep(0.02)\n"
    code += f"    while i == 10 and not os.path.exists({str(go)!r}): time.sleep(0.02)\ndisplay('last')\n1/0"
    cell, output = start(own, code)
    wait_for(lambda: "2\n" in output.text)
    own.wait(own.disconnect())
    with pytest.raises(TaskLost, match="let go"):
        cell.reply.result(0)
    later = again(host, loop, own)
    assert later.wait(again(host, loop, own, notebook="another").unseen("", 0)) == []
    [found] = later.wait(later.unseen("", 0))
    assert (found["id"], found["code"], found["ended"], found["own"]) == (cell.id, code, None, False)
    go.touch()
    messages = later.wait(followed(later, cell.id))
    assert "".join(m.content["text"] for m in messages if m.type == "stream") == "".join(f"{i}\n" for i in range(20))
    assert [m.type for m in messages if m.type != "stream"] == ["display_data", "error", "reply"]
    [found] = later.wait(later.unseen("", 0))
    assert found["status"] == "error"
    later.wait(later.shown(cell.id))
    assert later.wait(later.unseen("", 0)) == []
    later.wait(later.disconnect())


def test_what_an_earlier_page_may_have_missed(host, loop, own):
    """A page that was opened anew is told of the cells that ended after the last request of the page before it."""
    clock = 1e6  # seconds by which the page's clock is wrong
    pages = {}
    for page, number in (("first", 0), ("first", 1), ("second", 2)):
        cell, _ = start(own, f"import time; time.sleep(0.2); {number}", page=page, sent=time.time() + clock)
        cell.reply.result(30)
        pages.setdefault(page, []).append(cell.id)
    now = time.time() + clock
    assert [c["id"] for c in own.wait(own.unseen("second", now))] == [pages["first"][1]]
    assert [c["id"] for c in own.wait(own.unseen("third", now))] == [pages["first"][1], *pages["second"]]
    own.wait(own.shown(pages["first"][1]))
    assert own.wait(own.unseen("second", now)) == []
    assert own.wait(own.unseen("", 0)) == []


def test_two_notebooks_share_a_session(host, loop, session):
    """Each gets the output of its own cells."""
    other = Session(host.address, security=security(host.run_dir), loop=loop, name=session.name)
    run(session, "shared = 1")
    assert run(other, "print(shared)")[1].text == "1\n"
    other.wait(other.disconnect())
    assert run(session, "print(shared + 1)")[1].text == "2\n"


def test_answers_keep_to_their_budget(host, loop, own):
    """Large output comes in several answers, in order."""
    run(
        own, "from IPython.display import display\nfor i in range(20): display({'text/plain': 'x' * 100_000}, raw=True)"
    )

    async def ask():
        peer = Peer(host.address, security(host.run_dir).get_connection_args("client"))
        seen, answers = 0, []
        while True:
            answer = await peer.call("messages", session=own.name, since=seen, wait=0.01, max_bytes=450_000)
            if not answer["messages"]:
                await peer.close()
                return answers
            answers.append([m[2] for m in answer["messages"]])
            seen = answer["messages"][-1][0]

    answers = own.wait(ask(), 30)
    assert [kind for answer in answers for kind in answer] == ["display_data"] * 20 + ["reply"]
    assert max(answer.count("display_data") for answer in answers) == 4


# -- life ------------------------------------------------------------------------------------------------------------


def test_what_the_host_writes_is_the_users_alone(host, session):
    """Files are 0600; the address is published whole."""
    run(session, "print(1)")
    directory = host.run_dir / "sessions" / session.name
    assert {p.name for p in directory.iterdir()} == {"journal", "text-1", "kernel.log"}
    log = host.run_dir / "logs" / f"session-{session.name}.log"
    files = [*directory.iterdir(), log, host.run_dir / "sessions.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert json.loads((host.run_dir / "sessions.json").read_text()) == {"address": host.address}
    assert host.address.startswith("tls://127.0.0.1:")


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 65, "a\nb"])
def test_names_that_could_lead_elsewhere_are_refused(host, loop, name):
    """A session's name is a word; no path is made of anything else."""
    session = Session(host.address, security=security(host.run_dir), loop=loop, name=name)
    with pytest.raises(NotReady, match="no name for a session"):
        session.wait(session.open())
    assert not (host.run_dir / "b").exists()


def test_sessions_run_beside_each_other(host, loop, session):
    """A cell of one session does not wait for that of another, and their variables are their own."""
    cell, output = start(session, "x = 'mine'; print('begun', flush=True)\nimport time; time.sleep(1000)")
    wait_for(lambda: output.text)
    with connected(host, loop, "other") as other:
        assert run(other, "print('x' in globals())")[1].text == "False\n"
    assert not cell.reply.done()
    assert session.interrupt()
    assert cell.reply.result(30).ename == "KeyboardInterrupt"


def test_a_killed_kernel_ends_all_its_cells_and_is_replaced(own):
    """The cell that ran and those that wait end with the signal's name; the next one finds a new kernel."""
    pid = int(run(own, "import os, time; x = 1; print(os.getpid())")[1].text)
    cells = [start(own, code)[0] for code in ("time.sleep(1000)", "1", "2")]
    os.kill(pid, signal.SIGSEGV)
    for cell in cells:
        error = cell.reply.result(30).error
        assert isinstance(error, TaskLost)
        assert "killed by SIGSEGV (signal 11)" in str(error)
        assert "variables are gone" in error.remedy
    assert run(own, "print('x' in globals())")[1].text == "False\n"


def test_the_last_words_of_a_kernel_are_the_evidence(own):
    """What a crashing kernel wrote to stderr is in the message."""
    reply, _ = run(own, "import faulthandler\ndef crash(): faulthandler._sigsegv()\ncrash()")
    assert "Segmentation fault" in reply.error.evidence
    assert "in crash" in reply.error.evidence
    reply, _ = run(own, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "SIGKILL" in str(reply.error)
    assert "Segmentation fault" not in reply.error.evidence


def test_a_restart_begins_anew(own):
    """Variables are gone, cells that ran are told why."""
    run(own, "x = 1")
    cell, output = start(own, "print('begun', flush=True)\nimport time; time.sleep(1000)")
    wait_for(lambda: output.text)
    own.restart()
    assert "restarted" in str(cell.reply.result(30).error)
    assert run(own, "print('x' in globals())")[1].text == "False\n"


def test_a_closed_session_leaves_nothing_behind(host, loop):
    """Its kernel and what its cells have started are gone, also what left the process group."""
    with connected(host, loop, "short") as session:
        code = (
            "import os, subprocess\nps = [subprocess.Popen(['sleep', '1000'], start_new_session=s) for s in (0, 1)]\n"
        )
        pids = [int(word) for word in run(session, code + "print(os.getpid(), *[p.pid for p in ps])")[1].text.split()]
    gone(*pids)
    with connected(host, loop, "short") as session:
        assert run(session, "print('ps' in globals())")[1].text == "False\n"


def test_listing_says_what_runs(host, loop, session):
    """Who asks is told each session's cell, and what waits."""
    cell, output = start(session, "print('begun', flush=True)\nimport time; time.sleep(1000)")
    second, _ = start(session, "2")
    wait_for(lambda: output.text)

    async def ask():
        return await (await session.open()).call("list")

    [mine] = [s for s in session.wait(ask())["sessions"] if s["name"] == session.name]
    assert (mine["alive"], mine["running"]["id"], list(mine["waiting"])) == (True, cell.id, [second.id])
    session.interrupt()
    assert second.reply.result(30).status == "ok"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_host_takes_its_kernels_with_it(tmp_path, loop, number):
    """Told to end or killed: no kernel, no child of a cell and no socket is left."""
    host = HostProcess(make_run_dir(tmp_path))
    with connected(host, loop) as session:
        code = "import os, subprocess, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        code += "p = subprocess.Popen(['sh', '-c', 'trap \"\" INT TERM; while :; do sleep 0.1; done'])\n"
        pids = [int(word) for word in run(session, code + "print(os.getpid(), p.pid)")[1].text.split()]
        [directory] = {Path(c.laddr).parent for c in psutil.Process(pids[0]).net_connections("unix") if c.laddr}
        host.process.send_signal(number)
        host.process.wait(60)
        gone(*pids)
    wait_for(lambda: not directory.exists())
    if number == signal.SIGTERM:
        assert host.process.returncode == 0
        assert not (host.run_dir / "sessions.json").exists()


def test_the_host_ends_with_its_parent(tmp_path):
    """A pilot that is killed leaves no session host behind."""
    run_dir = make_run_dir(tmp_path)
    code = "import subprocess, sys, time\n"
    code += f"p = subprocess.Popen([sys.executable, '-m', 'hpcnb.pilot.session.host', '--run-dir', {str(run_dir)!r}])\n"
    code += "print(p.pid, flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        wait_for((run_dir / "sessions.json").exists)
        parent.kill()
    gone(pid)


def test_who_waits_is_told_when_the_host_is_gone(tmp_path, loop):
    """A cell does not wait for ever for a host that will not answer."""
    import dask

    host = HostProcess(make_run_dir(tmp_path))
    with connected(host, loop) as session:
        cell, output = start(session, "print('begun', flush=True)\nimport time; time.sleep(1000)")
        wait_for(lambda: output.text)
        session._patience = 0.5
        with dask.config.set({"distributed.comm.timeouts.connect": "300ms"}):  # only now that nobody is there
            host.process.kill()
            host.process.wait()
            with pytest.raises(TaskLost, match="the session is gone"):
                cell.reply.result(30)
            with pytest.raises(HPCError):
                run(session, "1")


# -- the cluster's client --------------------------------------------------------------------------------------------


SCHEDULER = """
import asyncio, sys
from pathlib import Path
from distributed import Scheduler, Worker
from hpcnb.site.authority import Role
from tests.unit.pilot.host import security

run_dir = Path(sys.argv[1])

async def main():
    quiet = {"protocol": "tls", "host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    secure = {role: security(run_dir, role) for role in Role if role in ("scheduler", "worker")}
    s = Scheduler(**quiet, scheduler_file=str(run_dir / "scheduler.json"), security=secure["scheduler"])
    async with s, Worker(s.address, nthreads=1, dashboard=False, security=secure["worker"]):
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def scheduler(host):
    """A Dask scheduler with one worker thread, over TLS, and its scheduler file in the run directory."""
    command = [sys.executable, "-c", SCHEDULER, str(host.run_dir)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for((host.run_dir / "scheduler.json").exists)
    yield process
    process.kill()
    process.wait()


def test_the_clusters_client_is_the_default_one(own, scheduler):
    """Dask uses the cluster without a word, nothing is in the namespace, and nothing is printed."""
    run(own, "names = set(globals())")
    _, output = run(own, "import dask; print(dask.delayed(lambda: __import__('os').getpid())().compute())")
    assert int(output.text) == scheduler.pid
    code = "from distributed import get_client, default_client\n"
    code += "print(get_client() is default_client(), sorted(n for n in set(globals()) - names if n[0] != '_'))"
    _, output = run(own, code)
    assert output.text == "True ['dask', 'default_client', 'get_client', 'names']\n"
    assert set(output.kinds) == {"stream"}


def test_dask_is_not_imported_before_it_is_used(own):
    """A kernel that does not need dask does not pay for it."""
    assert run(own, "import sys; print('distributed' in sys.modules, 'dask' in sys.modules)")[1].text == "False False\n"


def test_a_client_made_by_hand_connects_to_the_cluster_too(session, scheduler):
    """`Client(address)` needs no security argument in a session."""
    code = "import json, os\nfrom distributed import Client, default_client\n"
    code += "c = Client(default_client().scheduler.address)\nprint(c.submit(sum, [1, 2]).result()); c.close()"
    assert run(session, code)[1].text == "3\n"
