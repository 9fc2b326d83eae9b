"""Queues of a million tasks, against SQLite's own limit, the machine's own rate of processes, and what qdo and HyperQueue promise."""

from __future__ import annotations

import glob
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpcnb as hpc
from hpcnb.pilot.queue.lease import Watch
from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.states import TaskState
from hpcnb.pilot.queue.store import Store
from hpcnb.queue.queue import Queue, listing
from tests.benchmarks.ratio import seconds
from tests.isolation import Isolation
from tests.unit.queues.place import place

MILLION = 1_000_000
LOADED, ADDED, LISTED, ITERATED = 20.0, 0.05, 1.0, 10.0
GROWTH, FUNCTIONS, SPAWNED = 1.3, 15_000, 0.8
QDO = 120.0


def memory(code: str) -> tuple[float, float]:
    """Seconds that a program says it took, and the most memory that it had, in MiB."""
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    took, _, status = child.stdout.partition(" ")
    return float(took), int(status.partition("VmHWM:")[2].split()[0]) / 1024


# Not `ru_maxrss`, which a process has from whoever started it, if that is larger.
TOOK = "import time, hpcnb; q = hpcnb.Queue.connect({name!r}); t = time.perf_counter(); {work}; print(time.perf_counter() - t, open('/proc/self/status').read())"


def bench_load(isolated: Isolation) -> None:
    """A million tasks are loaded in less than 20 s and 1 GiB; then adding one and looking take less than 50 ms each."""
    q = hpc.Queue.create("big")
    work = f"q.add_multiple('process --input part-%07d.dat' % i for i in range({MILLION}))"
    took, peak = memory(TOOK.format(name="big", work=work))
    db = sqlite3.connect(isolated.folder / "bare.sqlite", isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, state INTEGER, payload TEXT)")
    rows = ((i, 1, f"process --input part-{i:07}.dat") for i in range(MILLION))
    bare = seconds(
        lambda: (db.execute("BEGIN"), db.executemany("INSERT INTO task VALUES (?, ?, ?)", rows), db.execute("COMMIT"))
    )
    db.close()
    print(
        f"\nload of 10^6: {took:.1f} s, {peak:.0f} MiB; ratio to bare SQLite {took / bare:.2f}, to qdo's promise {took / QDO:.2f}"
    )
    adds = [seconds(lambda: q.add("one more")) for _ in range(20)]
    looks = [seconds(q.status) for _ in range(20)]
    print(f"add one: {median(adds) * 1e3:.1f} ms, status: {median(looks) * 1e3:.1f} ms")
    assert took < LOADED
    assert peak < 1024
    assert max(median(adds), median(looks)) < ADDED


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def drained(q: Queue, tasks: int, **launch: Any) -> float:
    """Drain by two workers, and return the seconds from the first task to the last."""
    q.launch(2, pack=True, walltime="1h", **launch)
    while sum(q.status()["ntasks"][state] for state in ("Succeeded", "Failed")) < tasks:
        time.sleep(0.5)
    while Watch(place(q)).owner():
        time.sleep(0.1)
    (file,) = glob.glob(f"{place(q).path}/store/*.sqlite")  # noqa: PTH207
    db = sqlite3.connect(file)
    began, ended = db.execute("SELECT min(began), max(ended) FROM attempt").fetchone()
    db.close()
    return float(ended - began)


def bench_functions(isolated: Isolation) -> None:
    """A million no-op functions on two workers cost 1.3 times what ten thousand cost, each; 15,000 a second; and are read in 10 s."""
    each = {}
    for tasks in (10_000, MILLION):
        q = hpc.Queue.create(f"f{tasks}")
        q.add_multiple(range(tasks))
        each[tasks] = drained(q, tasks, func=abs) / tasks
    took, peak = memory(
        TOOK.format(name=f"f{MILLION}", work=f"assert sum(1 for _ in q.tasks('Succeeded')) == {MILLION}")
    )
    growth, rate = each[MILLION] / each[10_000], 1 / each[MILLION]
    limit = taken_and_finished(isolated.folder / "limit.sqlite", 100_000)
    print(
        f"\nfunctions: {rate:,.0f}/s, {rate / limit:.2f} of the store alone; a task at 10^6 costs {growth:.2f} of one at 10^4"
    )
    print(f"10^6 read: {took:.1f} s, {peak:.0f} MiB")
    assert growth < GROWTH
    assert rate > FUNCTIONS
    assert took < ITERATED
    assert peak < 300


def taken_and_finished(path: Path, tasks: int) -> float:
    """How many tasks a second the store takes and finishes when nobody carries them out."""
    store = Store(path, 1)
    with store.transaction():
        store.add(map(str, range(tasks)))
        me = store.worker("me")

    def drain() -> None:
        outcomes: list[Outcome] = []
        while True:
            with store.transaction():
                store.finish(me, outcomes)
                taken = store.take(me, 1000)
            if not taken:
                return
            outcomes = [Outcome(id, attempt, TaskState.SUCCEEDED, result=text) for id, attempt, text in taken]

    took = seconds(drain)
    store.close()
    return tasks / took


def spawned(commands: int) -> float:
    """How many processes a second this machine starts and ends, two at a time, when nobody does anything else."""

    def some() -> None:
        for _ in range(commands // 2):
            os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)

    threads = [threading.Thread(target=some) for _ in range(2)]
    work: Callable[[], Any] = lambda: ([t.start() for t in threads], [t.join() for t in threads])  # noqa: E731
    return commands / seconds(work)


def bench_commands(isolated: Isolation) -> None:
    """Commands run at 0.8 times the rate at which the machine starts processes at all, and above HyperQueue's rate, in turns."""
    tasks, ours, theirs, bare = 5000, [], [], []
    for turn in range(3):
        q = hpc.Queue.create(f"c{turn}")
        q.add_multiple(["/bin/true"] * tasks)
        bare.append(spawned(tasks))
        ours.append(tasks / drained(q, tasks))
        theirs.append(hyperqueue(isolated.folder / f"peer{turn}", tasks))
    rate, processes, peer = median(ours), median(bare), median(theirs)
    print(
        f"\ncommands: {rate:.0f}/s, processes at all {processes:.0f}/s, ratio {rate / processes:.2f}; "
        f"HyperQueue {peer:.0f}/s, ratio {rate / peer:.2f}"
    )
    assert rate > SPAWNED * processes
    assert rate > peer


# The server and the worker in the Python package are those of the program `hq`. What it prints of its progress, once a second,
# is too coarse: the last task, which waits for all others, leaves the time in a file.
PEER = """
import sys, time
from pathlib import Path
from hyperqueue.cluster import LocalCluster, WorkerConfig
from hyperqueue.job import Job
folder, tasks = Path(sys.argv[1]), int(sys.argv[2])
quiet = {"stdout": None, "stderr": None}
with LocalCluster(str(folder / "server"), WorkerConfig(cores=2)) as cluster:
    client = cluster.client()
    def run(tasks, name):
        job = Job(folder)
        each = [job.program(["/bin/true"], **quiet) for _ in range(tasks)]
        job.program(["touch", name], deps=each, **quiet)
        start = time.time()
        client.wait_for_jobs([client.submit(job)])
        return (folder / name).stat().st_mtime - start
    run(10, "warm")
    took = run(tasks, "done")
print("took", took)
"""


def hyperqueue(folder: Path, tasks: int) -> float:
    """How many commands a second HyperQueue runs here, on a worker with two cores."""
    folder.mkdir()
    (folder / "server").mkdir()
    words = [sys.executable, "-c", PEER, str(folder), str(tasks)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=folder)
    return tasks / float(done.stdout.split()[-1])


def bench_fan_in(isolated: Isolation) -> None:
    """A child of ten thousand parents is released within a second of the end of the last one."""
    q = hpc.Queue.create("fan")
    child = q.add(0, requires=q.add_multiple(range(10_000)))
    drained(q, 10_001, func=abs)
    ended = max(q.task(id)["attempts"][-1]["ended"] for id in range(9_000, 10_001))
    waited = q.task(child)["attempts"][-1]["began"] - ended
    print(f"\nfan-in of 10,000: {waited * 1e3:.0f} ms")
    assert waited < 1


def bench_many_takers(isolated: Isolation) -> None:
    """32 processes that take 10,000 tasks one by one: each task once, none lost."""
    q = hpc.Queue.create("many")
    q.add_multiple(range(10_000))
    code = (
        "import hpcnb\nq = hpcnb.Queue.connect('many')\nwhile c := q.get(timeout=5):\n    print(c.id)\n    c.succeed()"
    )
    start = time.perf_counter()
    takers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(32)]
    got = [int(word) for taker in takers for word in taker.communicate()[0].split()]
    print(f"\n32 processes: {10_000 / (time.perf_counter() - start):.0f} tasks/s, taken and finished one by one")
    assert sorted(got) == list(range(1, 10_001))


def bench_list(isolated: Isolation) -> None:
    """A thousand queues are listed in less than a second."""
    for number in range(1000):
        hpc.Queue.create(f"q{number:04}")
    took = seconds(listing)
    print(f"\n1000 queues listed in {took * 1e3:.0f} ms")
    assert took < LISTED
