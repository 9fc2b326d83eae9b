"""What tasks print that run at once in one worker: each line is its own task's, as far as that can be known."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import hpcnb as hpc
from tests.acceptance.conftest import own_cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """One worker of two cores."""
    with own_cluster(workers_per_node=1, cores_per_worker=2) as cluster:
        yield cluster


def meet(folder, me, other):
    """Wait until both have come so far; gives the next place to meet at."""
    Path(folder, me).touch()
    while not Path(folder, other).exists():
        time.sleep(0.005)


def talk(folder, me, other):
    """Print by all means while another task does."""
    meet(folder, f"{me}0", f"{other}0")
    for turn in range(50):
        print(me, "python", turn)
        logging.getLogger("mine").warning("%s logged %s", me, turn)
    subprocess.run(["sh", "-c", f"echo {me} child; echo {me} child err >&2"], check=True)
    subprocess.run(["echo", me, "to my stdout"], stdout=sys.stdout, check=True)
    thread = threading.Thread(target=print, args=(me, "thread"))
    thread.start()
    thread.join()
    if (pid := os.fork()) == 0:
        print(me, "fork", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    meet(folder, f"{me}1", f"{other}1")


def test_lines_of_tasks_that_run_at_once_do_not_mix(cluster, tmp_path):
    """Streams know the thread, children and forks have a file of its own."""
    futures = [hpc.submit(talk, str(tmp_path), me, other) for me, other in ("ab", "ba")]
    hpc.gather(futures)
    for me, future in zip("ab", futures, strict=True):
        lines = future.logs().splitlines()
        assert {line.split()[0] for line in lines} == {me}
        assert [line for line in lines if "python" in line] == [f"{me} python {turn}" for turn in range(50)]
        assert [line for line in lines if "logged" in line] == [f"{me} logged {turn}" for turn in range(50)]
        rest = [line.partition(" ")[2] for line in lines if "python" not in line and "logged" not in line]
        assert sorted(rest) == ["child", "child err", "fork", "thread", "to my stdout"]


async def wait_and_say(folder, me, other):
    """A task that is a coroutine."""
    Path(folder, me).touch()
    while not Path(folder, other).exists():  # noqa: ASYNC110 - it is made by another task, on whichever worker
        await asyncio.sleep(0.005)
    print("I am", me)
    await asyncio.to_thread(print, "in a thread,", me)


def test_coroutines_that_share_the_event_loop_do_not_mix(cluster, tmp_path):
    """Both run in the thread of the worker's event loop, at once."""
    futures = [hpc.submit(wait_and_say, str(tmp_path), me, other) for me, other in ("cd", "dc")]
    hpc.gather(futures)
    assert [future.logs() for future in futures] == [f"I am {me}\nin a thread, {me}\n" for me in "cd"]


def in_c(folder, me, other, text):
    """Write to the descriptor itself."""
    meet(folder, f"{me}0", f"{other}0")
    if text:
        os.write(1, text)
    meet(folder, f"{me}1", f"{other}1")


def test_what_cannot_be_known_is_the_workers(cluster, tmp_path):
    """What C code writes while two tasks run is in the worker's log, and taken for neither's."""
    futures = [
        hpc.submit(in_c, str(tmp_path), me, other, text) for me, other, text in (("e", "f", b"?\n"), ("f", "e", b""))
    ]
    hpc.gather(futures)
    assert [future.logs() for future in futures] == ["", ""]
    worker = cluster.logs("worker")
    assert "?" in worker.splitlines()


def plain(word):
    """A task of bare Dask's."""
    print("plain", word)
    return word


def test_a_task_of_plain_dask_is_attributed_too(cluster):
    """`Client(cluster).submit` knows nothing of us, and has its lines nevertheless."""
    future = cluster.client.submit(plain, 1)
    assert future.result() == 1
    assert hpc.handle.run(cluster.handle.printed(future.key))[0]["text"] == "plain 1\n"


def apart(folder, me, other):
    """Print in a process of its own, beside another task."""
    meet(folder, f"{me}0", f"{other}0")
    print(me, "python")
    os.write(2, f"{me} descriptor\n".encode())
    subprocess.run(["echo", me, "child"], check=True)
    meet(folder, f"{me}1", f"{other}1")


def test_processes_of_their_own_do_not_mix(cluster, tmp_path):
    """Isolated tasks have a file of their own as well, from their interpreter to their children."""
    futures = [hpc.task(isolate=True)(apart)(str(tmp_path), me, other) for me, other in ("gh", "hg")]
    hpc.wait(futures)
    for me, future in zip("gh", futures, strict=True):
        assert future.logs() == f"{me} python\n{me} descriptor\n{me} child\n"


def test_a_thousand_results_do_not_wait_for_their_lines(cluster, capsys):
    """Who brings results one by one while tasks print is not held up each time, and has all lines in the end."""
    began = time.monotonic()
    for future in hpc.map(plain, range(1000), batch_size=10):
        future.result()
    took = time.monotonic() - began
    for one in list(hpc.printed._all):
        one.settle(at_once=True)
    lines = [line.partition("plain ")[2] for line in capsys.readouterr().out.splitlines() if "] on " in line]
    assert sorted(map(int, lines)) == list(range(1000))
    assert took < 30
