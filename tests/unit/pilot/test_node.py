"""The processes of one node: restarted, limited, reported, and all gone at the end."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.unit.pilot.tiny import STAY, TinyNode, alive, gone, wait_for

OWN_CHILD = f"""
import subprocess
child = subprocess.Popen(["sleep", "1000"])
(folder / "own.pid").write_text(str(child.pid))
{STAY}
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); (folder / 'deaf').touch(); {STAY}"
ORPHAN = """
import os, signal
if os.fork() == 0:
    os.setsid()
    (folder / "own.pid").write_text(str(os.getpid()))
    os.close(1), os.close(2)
signal.pause()
"""


@pytest.fixture
def node(tmp_path):
    """Start a node with tiny processes; whatever is left of it is ended after the test."""
    started = []

    def start(children, **constants):
        started.append(TinyNode(tmp_path, children, **constants))
        return started[-1]

    yield start
    for each in started:
        each.close()


def own_child(node):
    """The process that a worker has started."""
    return wait_for(lambda: (node.folder / "own.pid").exists() and int((node.folder / "own.pid").read_text() or 0))


def test_a_killed_worker_is_restarted_and_reported(node):
    """A worker that is killed runs again at once, and the pilot hears how it died."""
    tiny = node({"worker-0": STAY, "scheduler": STAY})
    first, scheduler = tiny.pid("worker-0"), tiny.pid("scheduler")
    os.kill(first, signal.SIGKILL)
    assert tiny.event() == {
        "event": "worker-exit",
        "worker": "worker-0",
        "how": "was killed by SIGKILL",
        "code": -9,
        "tail": "",
    }
    assert alive(tiny.pid("worker-0", other_than=first))
    assert alive(scheduler)


def test_what_dies_by_a_signal_is_restarted_as_often_as_it_takes(node):
    """A task that brings its worker down, again and again, does not end the cluster of the others."""
    tiny = node({"worker-0": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "scheduler": STAY}, PACE=0.0)
    for _ in range(5):
        assert tiny.event()["how"] == "was killed by SIGSEGV"
    assert alive(tiny.pid("scheduler"))


def test_three_short_lives_end_the_node_with_the_evidence(node):
    """A worker that cannot start ends the node after the third attempt, with the end of its log."""
    tiny = node({"worker-0": "print('so long'); raise SystemExit(3)", "worker-1": STAY}, PACE=0.0)
    other = tiny.pid("worker-1")
    events = [tiny.event() for _ in range(4)]
    assert [e["how"] for e in events[:3]] == ["ended with exit status 3"] * 3
    assert events[3]["event"] == "failed"
    assert events[3]["what"] == "worker-0 ended with exit status 3 3 times in a row"
    assert events[3]["tail"] == "so long\n" * 3
    assert tiny.event() is None
    assert tiny.wait() == 1
    assert not alive(other)


def test_a_worker_that_lived_long_is_no_hopeless_case(node):
    """Only lives that were short count."""
    tiny = node({"worker-0": "raise SystemExit(3)", "scheduler": STAY}, SHORT_LIFE=0.0, PACE=0.0)
    assert [tiny.event()["event"] for _ in range(5)] == ["worker-exit"] * 5


def test_a_worker_that_had_a_task_is_no_hopeless_case(node):
    """A task that exits, again and again, does not end the cluster of the others."""
    tiny = node({"worker-0": "worked[0] = 1; raise SystemExit(3)", "scheduler": STAY}, PACE=0.0)
    assert [tiny.event()["event"] for _ in range(5)] == ["worker-exit"] * 5


def test_a_worker_that_retires_is_replaced(node):
    """A worker that Dask has told to end did not fail; another takes its place."""
    tiny = node({"worker-0": "pass", "scheduler": STAY}, PACE=0.0)
    events = [tiny.event() for _ in range(4)]
    assert {(e["how"], e["tail"]) for e in events} == {("ended with exit status 0", "")}


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise SystemExit(3)", "ended with exit status 3"),
        ("raise SystemExit('words')", "ended with exit status 1"),
        ("1 / 0", "ended with exit status 1"),
        ("import os; os.abort()", "was killed by SIGABRT"),
    ],
)
def test_without_its_scheduler_a_node_ends(node, code, how):
    """The end of a process that is not a worker ends the node, with its log as evidence."""
    tiny = node({"scheduler": f"print('its log', flush=True); {code}", "worker-0": OWN_CHILD, "sessions": STAY})
    event = tiny.event()
    assert (event["event"], event["what"]) == ("failed", f"the scheduler process {how}")
    assert event["tail"].startswith("its log\n")
    assert ("ZeroDivisionError" in event["tail"]) == ("/" in code)
    assert tiny.wait() == 1


def test_a_worker_that_outgrows_its_memory_is_ended(node):
    """A worker over its limit is killed with all that it started, restarted, and the pilot hears the figures."""
    greedy = OWN_CHILD.replace("import signal", "hoard = bytearray(300 << 20); import signal")
    tiny = node({"worker-0": {"code": greedy, "memory": 200 << 20}, "scheduler": STAY}, CHECK=0.05)
    child = own_child(tiny)
    event = tiny.event()
    assert event["event"] == "worker-exit"
    assert event["how"].startswith("was ended at ")
    assert event["how"].endswith(": more than 95% of its limit of 200 MiB")
    gone(child)


def test_what_a_worker_started_dies_with_it(node):
    """The children of a killed worker do not live on beside its successor."""
    tiny = node({"worker-0": OWN_CHILD, "scheduler": STAY})
    child = own_child(tiny)
    os.kill(tiny.pid("worker-0"), signal.SIGKILL)
    gone(child)
    assert tiny.event()["event"] == "worker-exit"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_ends_everything(node, number):
    """Told to end, the node ends its processes and theirs, says nothing more, and has succeeded."""
    tiny = node({"worker-0": OWN_CHILD, "scheduler": STAY, "sessions": {"code": STAY, "asked": True}})
    pids = [own_child(tiny), *(tiny.pid(name) for name in ("worker-0", "scheduler", "sessions"))]
    tiny.process.send_signal(number)
    assert tiny.wait() == 0
    gone(*pids)
    assert tiny.event() is None


def test_the_end_of_the_pilot_ends_everything(node):
    """A node whose pilot is gone, wherever that was, sees its stdin end, and ends."""
    tiny = node({"worker-0": OWN_CHILD, "scheduler": STAY}, stdin=subprocess.PIPE)
    pids = [own_child(tiny), tiny.pid("worker-0"), tiny.pid("scheduler")]
    tiny.process.stdin.close()
    assert tiny.wait() == 0
    gone(*pids)


def test_who_is_deaf_is_killed_after_the_grace(node):
    """A process that does not obey the polite signal gets the other one."""
    tiny = node({"sessions": {"code": STUBBORN, "asked": True}, "worker-0": STAY}, GRACE=0.3)
    wait_for((tiny.folder / "deaf").exists)
    deaf = tiny.pid("sessions")
    tiny.process.terminate()
    assert tiny.wait() == 0
    assert not alive(deaf)


def test_who_is_asked_has_time(node):
    """A process that is told to end may tidy up first."""
    tidy = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: (folder / 'tidy').touch()); (folder / 'set').touch()"
    )
    tiny = node({"sessions": {"code": f"{tidy}; signal.pause()", "asked": True}})
    wait_for((tiny.folder / "set").exists)
    tiny.process.terminate()
    assert tiny.wait() == 0
    assert (tiny.folder / "tidy").exists()


def test_when_the_supervisor_is_killed_all_die(node):
    """No process of ours outlives a supervisor that had no time to say goodbye."""
    tiny = node({"worker-0": STAY, "worker-1": STAY, "scheduler": STAY, "sessions": {"code": STAY, "asked": True}})
    pids = [tiny.pid(name) for name in ("worker-0", "worker-1", "scheduler", "sessions")]
    tiny.process.kill()
    tiny.wait()
    gone(*pids)
    assert tiny.event() is None


def test_output_goes_to_the_log(node):
    """What a process and its children print is in its log, readable by the user alone."""
    code = f"import subprocess; print('one', flush=True); subprocess.run(['echo', 'two']); {STAY}"
    tiny = node({"worker-0": code, "scheduler": STAY})
    wait_for(lambda: (tiny.folder / "worker-0.log").exists() and tiny.log("worker-0") == "one\ntwo\n")
    assert (tiny.folder / "worker-0.log").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_makes_no_second_supervisor(node):
    """A process that cannot write its last words ends all the same, and nobody else restarts workers."""
    code = "import os; (folder / str(os.getppid())).touch(); print('x'); raise SystemExit(3)"
    tiny = node({"worker-0": {"code": code, "log": "/dev/full"}}, PACE=0.0)
    assert [tiny.event()["event"] for _ in range(4)] == ["worker-exit"] * 3 + ["failed"]
    assert tiny.event() is None
    assert tiny.wait() == 1
    assert [path.name for path in tiny.folder.iterdir() if path.name.isdigit()] == [str(tiny.process.pid)]


def test_a_log_that_cannot_be_opened(node):
    """Where there is no room for a log, a process fails as any other, without evidence."""
    tiny = node({"worker-0": {"code": STAY, "log": "/nowhere/worker.log"}}, PACE=0.0)
    events = [tiny.event() for _ in range(4)]
    assert [(e["event"], e["tail"]) for e in events] == [("worker-exit", "")] * 3 + [("failed", "")]
    assert tiny.wait() == 1


@pytest.mark.skipif(os.getuid() != 0, reason="another user is needed, who may have few processes")
def test_who_may_start_no_more_processes_waits():
    """What tasks have left behind is all that their user may have: a worker is replaced when there is room, and nobody ends."""
    user = 100_000 + os.getpid()  # of whom nobody else has processes
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        (folder := Path(name)).chmod(0o777)
        tiny = TinyNode(folder, {"scheduler": STAY, "worker-0": ORPHAN}, user=user, PACE=0.05)
        try:
            worker, left = tiny.pid("worker-0"), own_child(tiny)
            more = [subprocess.Popen(["sleep", "1000"], user=user, env={**os.environ, "TINY": name}) for _ in range(3)]
            os.kill(worker, signal.SIGKILL)
            assert tiny.event()["how"] == "was killed by SIGKILL"
            wait_for(lambda: "worker-0 cannot be started" in (folder / "node.log").read_text(), 10)
            assert alive(tiny.pid("scheduler"))
            os.kill(left, signal.SIGKILL)
            for one in more:
                one.kill()
                one.wait()
            assert alive(tiny.pid("worker-0", other_than=worker))
        finally:
            tiny.close()


WANTS = ["BlockingIOError(11, '')", "MemoryError", 'RuntimeError("can\'t start new thread")']


@pytest.mark.parametrize("error", WANTS)
def test_a_worker_that_lacks_what_others_hold_is_no_hopeless_case(node, error):
    """Processes, memory, threads: it starts when there are some."""
    code = "tries = folder / 'tries'\ntries.open('a').write('x')\n"
    tiny = node({"worker-0": f"{code}if tries.stat().st_size < 6: raise {error}\n{STAY}", "scheduler": STAY}, PACE=0.0)
    assert [tiny.event()["event"] for _ in range(5)] == ["worker-exit"] * 5
    wait_for(lambda: (tiny.folder / "tries").stat().st_size == 6)
    assert alive(tiny.pid("scheduler"))


def test_what_dies_at_its_birth_keeps_no_core_busy(node):
    """A worker that ends as soon as it starts is not started again in the same instant."""
    stamp = "import time; open(folder / 'births', 'a').write(f'{time.monotonic()}\\n')"
    tiny = node({"worker-0": stamp, "scheduler": STAY}, PACE=1.0)
    for _ in range(2):
        tiny.event()
    births = [float(line) for line in (tiny.folder / "births").read_text().split()]
    assert (
        min(b - a for a, b in itertools.pairwise(births)) > 0.25
    )  # the first may take a moment until it can tell the time


def test_what_a_task_leaves_behind_does_not_keep_the_pilot_waiting(node):
    """A daemon that a task forked does not hold the pipe by which the pilot sees that the node has ended."""
    tiny = node({"worker-0": ORPHAN, "scheduler": STAY})
    orphan = own_child(tiny)
    tiny.process.terminate()
    assert tiny.wait() == 0
    assert tiny.event() is None
    assert alive(orphan)
