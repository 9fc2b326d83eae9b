"""The session host at bad moments: two faults at once, hostile values, names that are no text."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil
import pytest

from hpcnb.errors import CannotSerialize, HPCError, TaskError, TaskLost
from hpcnb.pilot.rpc import Peer
from hpcnb.session import Running
from tests.site.account import words
from tests.unit.pilot.host import connected, security, wait_for
from tests.unit.pilot.session.test_host import Output, run, start
from tests.unit.pilot.tiny import gone


def peer(host):
    return Peer(host.address, security(host.run_dir).get_connection_args("client"))


def kernels(host):
    """The kernels that the host has."""
    found = psutil.Process(host.process.pid).children()
    return [one.pid for one in found if "hpcnb.pilot.session.kernel" in " ".join(words(one))]


def test_a_cell_that_comes_again_while_its_kernel_starts_runs_once(host, loop, own, tmp_path):
    """The kernel has died, and while the cell waits for a new one the connection breaks: what is sent again is known."""
    assert isinstance(run(own, "import os; os._exit(3)")[0].error, TaskLost)
    cell = Running(code=f"print('ran', file=open({str(tmp_path / 'ran')!r}, 'a'))", count=1, on_message=Output())

    async def send():
        ask = {"session": own.name, "cell": cell.request(), "needs": []}
        others = [peer(host) for _ in range(3)]
        await asyncio.gather(*(other.call("execute", **ask) for other in others))
        await asyncio.gather(*(other.close() for other in others))

    own.wait(send(), 60)
    assert run(own, "1")[0].status == "ok"
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_a_session_that_is_closed_while_its_kernel_starts(host, loop):
    """Nothing of it is left."""
    before = kernels(host)

    async def open_and_close():
        one, other = peer(host), peer(host)
        opening = asyncio.ensure_future(one.call("open", session="brief"))
        await asyncio.to_thread(wait_for, lambda: len(kernels(host)) > len(before))
        await other.call("close_session", session="brief")
        with pytest.raises(HPCError):
            await opening
        await asyncio.gather(one.close(), other.close())

    asyncio.run_coroutine_threadsafe(open_and_close(), loop).result(60)
    wait_for(lambda: kernels(host) == before, 10)


def test_a_kernel_that_cannot_be_started_leaves_nothing(host, loop):
    """The directory of the work is gone: who opens a session is told, and may try for ever."""
    work = host.run_dir / "work"
    work.rename(host.run_dir / "away")
    own_process = psutil.Process(host.process.pid)
    try:
        for number in range(4):
            with pytest.raises(HPCError, match="No such file"), connected(host, loop, "nowhere") as session:
                session.missing([])
            if number == 0:
                files, threads = own_process.num_fds(), own_process.num_threads()
        # The last one's connection may take a moment to go.
        wait_for(lambda: own_process.num_fds() <= files and own_process.num_threads() <= threads)
    finally:
        (host.run_dir / "away").rename(work)
    with connected(host, loop, "nowhere") as session:
        assert run(session, "print(1)")[1].text == "1\n"


SLOW = """
class Slow:
    def __reduce__(self):
        import pathlib, time
        pathlib.Path({!r}).touch()
        time.sleep(1000)
"""


def test_values_that_take_for_ever_can_be_interrupted(own, tmp_path):
    """The cell has ended, what it is to bring back is still being pickled."""
    run(own, SLOW.format(str(tmp_path / "begun")))
    cell, _ = start(own, "x = Slow()", out=["x"])
    wait_for((tmp_path / "begun").exists)
    assert own.interrupt()
    reply = cell.reply.result(20)
    assert isinstance(reply.error, TaskError)
    assert "interrupted" in str(reply.error)
    assert run(own, "print(type(x).__name__)")[1].text == "Slow\n"


def test_a_pull_that_takes_for_ever_can_be_interrupted(own, tmp_path):
    """Else a restart, and the loss of all variables, would be the only way out."""
    run(own, SLOW.format(str(tmp_path / "begun")) + "x = Slow()")
    pulling = asyncio.run_coroutine_threadsafe(own._call("pull", names=["x"]), own.loop)
    wait_for((tmp_path / "begun").exists)
    cell, _ = start(own, "1")
    assert own.interrupt()
    assert cell.reply.result(20).ename in ("", "KeyboardInterrupt")
    with pytest.raises(TaskError, match="interrupted"):
        pulling.result(20)
    assert run(own, "print(type(x).__name__)")[1].text == "Slow\n"


HOSTILE = """
class Hostile(Exception):
    def __str__(self):
        raise SystemExit
class Value:
    def __reduce__(self):
        raise Hostile
class Ends:
    def __reduce__(self):
        raise SystemExit
def fails(): raise Hostile
class Loaded:
    def __reduce__(self):
        return fails, ()
"""


@pytest.mark.parametrize("made", ["Value", "Ends"])
def test_values_that_fail_in_the_worst_way(own, made):
    """An error that cannot be shown, or one that would end a program: the variable is named, the session goes on."""
    run(own, HOSTILE)
    cell, _ = start(own, f"x = {made}()", out=["x"])
    error = cell.reply.result(20).error
    assert isinstance(error, CannotSerialize)
    assert "x (" in str(error)
    with pytest.raises(CannotSerialize, match=r"x \("):
        own.wait(own._call("pull", names=["x"]), 20)
    assert run(own, "print(1)")[1].text == "1\n"


def test_a_value_whose_pickle_fails_in_the_worst_way(own):
    """It is named, whether it comes alone or with a cell."""
    from hpcnb.pilot.rpc import in_frames
    from hpcnb.pilot.values import dump

    space = {}
    exec(HOSTILE, space)
    frames = dump({"x": space["Loaded"]()})
    with pytest.raises(CannotSerialize, match="x cannot be rebuilt"):
        own.wait(own._call("push", names=["x"], frames=in_frames(frames)), 20)
    cell = Running(code="print(1)", count=1, on_message=Output())
    own.wait(own.submit(cell, names=["x"], frames=frames))
    error = cell.reply.result(20).error
    assert isinstance(error, CannotSerialize)
    assert "x cannot be rebuilt" in str(error)


def test_what_a_cell_started_is_found_whatever_its_name(own):
    """Linux cuts names after 15 bytes, in the middle of a letter: the interrupt ends it nevertheless."""
    child = "import ctypes, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    child += "ctypes.CDLL(None).prctl(15, b'\\xd1\\x80\\xd0'); print('deaf', flush=True); time.sleep(1000)"
    cell, output = start(
        own, f"import subprocess\np = subprocess.Popen([{sys.executable!r}, '-c', {child!r}])\nprint(p.pid)\np.wait()"
    )
    wait_for(lambda: "deaf" in output.text)
    pid = int(output.text.split()[0])
    own.interrupt()
    assert cell.reply.result(20).ename == "KeyboardInterrupt"
    gone(pid)


def test_a_kernel_dies_whose_log_is_gone(host, own):
    """A scratch file system was purged: cells end nevertheless, and the next one has a kernel."""
    pid = int(run(own, "import os, time; print(os.getpid())")[1].text)
    cell, output = start(own, "print('begun', flush=True); time.sleep(1000)")
    wait_for(lambda: output.text)
    (host.run_dir / "sessions" / own.name / "kernel.log").unlink()
    os.kill(pid, signal.SIGSEGV)
    assert isinstance(cell.reply.result(20).error, TaskLost)
    assert run(own, "print(1)")[1].text == "1\n"


def test_an_answer_is_to_one_question(own):
    """One that comes twice, or from a page that is late, is not taken for the answer to the next question."""
    cell, output = start(own, "a = input('one'); b = input('two')", allow_stdin=True)
    asked = lambda: [m.seq for m in output.messages if m.type == "input_request"]  # noqa: E731
    wait_for(lambda: len(asked()) == 1)
    first = asked()[0]
    own.wait(own.answer("1", first))
    wait_for(lambda: len(asked()) == 2)
    own.wait(own.answer("1", first))
    own.wait(own.answer("2", asked()[1]))
    assert cell.reply.result(20).status == "ok"
    assert own.pull(["a", "b"]) == {"a": "1", "b": "2"}


def test_text_and_errors_that_are_no_utf_8_arrive(own, host):
    """Names of files may be any bytes: they are shown as well as that can be, and the log has them as they are."""
    code = "import os\nopen(b'caf\\xe9', 'w').close()\nprint('before'); print(os.listdir()[0]); print('after')\n"
    reply, output = run(own, code + "raise OSError(os.listdir()[0])")
    assert (reply.ename, reply.error, reply.evalue) == ("OSError", None, "caf\ufffd")
    assert output.text == "before\ncaf\ufffd\nafter\n"
    assert b"before\ncaf\xe9\n" in (host.run_dir / "logs" / f"session-{own.name}.log").read_bytes()
    (host.run_dir / "work" / os.fsdecode(b"caf\xe9")).unlink()
