"""Workers are killed at random under thousands of tasks that need each other: every result is right, and counted once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

import hpcnb as hpc
from tests.isolation import Isolation
from tests.unit.pilot.tiny import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = os.environ.get("HPCNB_LAB_LONG")
KILLS, CHAINS, STEPS = (200, 2000, 10) if LONG else (20, 200, 10)
PAUSE = 0.7
"""Seconds between two kills, on average."""
START = 60.0


def step(value, number):
    """One task: what it gives depends on all before it."""
    time.sleep(0.005)
    return (value * 31 + number) % 1_000_003


def expected(chain):
    """What the last task of a chain is to give, computed here."""
    value = chain
    for number in range(STEPS):
        value = (value * 31 + number) % 1_000_003
    return value


def workers(place):
    """The processes of the workers: each leads its group, and writes its own log."""
    found = []
    for process in place.processes():
        with contextlib.suppress(OSError, psutil.Error):
            log = Path(os.readlink(f"/proc/{process.pid}/fd/1")).name
            if log.startswith("worker-") and os.getpgid(process.pid) == process.pid:
                found.append(process)
    return found


class Killer(threading.Thread):
    """Kills one worker after another, chosen by chance."""

    def __init__(self, place: Isolation) -> None:
        super().__init__()
        self._place, self._chance = place, random.Random(4)
        self.killed = 0

    def run(self):
        while self.killed < KILLS:
            threading.Event().wait(self._chance.expovariate(1 / PAUSE))
            if found := workers(self._place):
                self._chance.choice(found).send_signal(signal.SIGKILL)
                self.killed += 1


def test_random_kills_cost_nothing(isolated, figure):
    """Random SIGKILLs of workers: every result is right, each is counted once, and no task is charged a retry."""
    counted: Counter[str] = Counter()
    values: dict[str, int] = {}
    lock = threading.Lock()

    def count(future):
        with lock:
            counted[future.key] += 1
            values[future.key] = future.result()

    begun = time.monotonic()
    with hpc.Cluster(workers_per_node=3, cores_per_worker=1, name="kills", walltime="1h") as cluster:
        cluster.wait_until_ready(START)
        hpc.use(cluster)
        # Before there is any task: nobody shall take the first who is hit by chance for the one to blame.
        workers(isolated)[0].send_signal(signal.SIGKILL)
        killer = Killer(isolated)
        killer.start()
        last = {}
        for chain in range(CHAINS):
            future = chain
            for number in range(STEPS):
                future = hpc.submit(step, future, number)  # with no retry to spend
                future.add_done_callback(count)
            last[future.key] = chain
            del future
        wait_for(lambda: len(counted) == CHAINS * STEPS, deadline=1500)
        killer.join()
    assert set(counted.values()) == {1}
    assert {key: values[key] for key in last} == {key: expected(chain) for key, chain in last.items()}
    figure(f"{killer.killed} kills, {len(counted)} tasks, {time.monotonic() - begun:.0f} s")
