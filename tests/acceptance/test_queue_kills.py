"""A queue whose workers, owner and pilots are killed at random while it is drained."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import psutil
import pytest

import hpcnb as hpc
from hpcnb.pilot.queue.lease import Watch
from tests.site.account import until
from tests.unit.queues.place import place

pytestmark = pytest.mark.slow

LONG = bool(os.environ.get("HPCNB_LAB_LONG"))
LEVELS, WIDTH, KILLS = (100, 100, 500) if LONG else (6, 25, 20)


def processes(q):
    """Our processes that drain the queue, by what they are."""
    found = {"pilot": [], "node": [], "worker": []}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            words = process.cmdline()
            if words and words[-1].startswith(f"{place(q).path}/runs/") and "hpcnb.pilot.queue" in words:
                found[words[-2]].append(process)
    return found


@pytest.mark.timeout(3600 if LONG else 180)
def test_killed_at_random(isolated, figure):
    """Chained tasks, and random SIGKILLs of all that drains them: none lost, each result recorded once, no manual step."""
    q = hpc.Queue.create("extract")
    effects = place(q).path / "effects"
    before: list[list[int]] = []
    for _ in range(LEVELS):
        commands = [f"sleep 0.02; echo $HPCNB_TASK >> {effects}"] * WIDTH
        ids = q.add_multiple(commands, requires=before)
        before = [[id] for id in ids]
    q.launch(3, walltime="1h")
    chance, killed = random.Random(7), []
    while len(killed) < KILLS and q.status()["ntasks"]["Succeeded"] < LEVELS * WIDTH:
        there = processes(q)
        if len(there["pilot"]) < 3:  # somebody has to be left to go on: a plain process has no successor
            q.launch(1, walltime="1h")
        kind = chance.choice(["worker", "worker", "node", "pilot"])
        if there[kind]:
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(there[kind]).send_signal(signal.SIGKILL)
                killed.append(kind)
        time.sleep(chance.random() * 0.5)  # no event is waited for: the moment is what varies
    until(lambda: q.status()["ntasks"]["Succeeded"] == LEVELS * WIDTH, within=3000 if LONG else 120)
    until(lambda: not any(processes(q).values()))
    assert Watch(place(q)).owner() is None
    runs = effects.read_text().split()
    assert set(runs) == {str(id) for id in range(1, LEVELS * WIDTH + 1)}
    attempts = {task.id: q.task(task.id)["attempts"] for task in q.tasks()}
    assert all([one["state"] for one in each].count("Succeeded") == 1 for each in attempts.values())
    again = sum(len(each) - 1 for each in attempts.values())
    figure(f"{len(killed)} kills, {len(runs) - len(attempts)} effects twice, {again} attempts lost of {len(attempts)}")
