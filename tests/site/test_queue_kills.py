"""Queues whose workers, owner, pilots and nodes are killed at random while they are drained."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import sys
import time

import psutil
import pytest

import hpcnb as hpc
from hpcnb.pilot.queue.lease import Watch
from tests.site.account import until
from tests.unit.queues.place import place

LONG = bool(os.environ.get("HPCNB_LAB_LONG"))
LEVELS, WIDTH, KILLS = (100, 100, 500) if LONG else (6, 25, 20)
PARTS = ("worker", "worker", "node", "pilot")
"""What is killed, as often as it is named; one of the pilots is the owner."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 180)]


def processes(q):
    """Our processes that drain the queue, by what they are."""
    found = {"pilot": [], "node": [], "worker": []}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            words = process.cmdline()
            if words and words[-1].startswith(f"{place(q).path}/runs/") and words[0] == sys.executable:
                found[words[-2]].append(process)
    return found


def drain(q, figure, also=lambda _: None):
    """Launch three jobs for chained tasks, kill at random what drains them, and see that nothing came to harm."""
    effects = place(q).path / "effects"
    before: list[list[int]] = []
    for _ in range(LEVELS):
        commands = [f"sleep 0.02; echo $HPCNB_TASK >> {effects}"] * WIDTH
        ids = q.add_multiple(commands, requires=before)
        before = [[id] for id in ids]
    start = time.monotonic()
    q.launch(3, walltime="1h")
    killed = kill(q, also)
    until(
        lambda: sum(map(tasks(q).get, ("Succeeded", "Failed"))) == LEVELS * WIDTH,
        within=3000 if LONG else 120,
        every=0.5,
    )
    assert tasks(q)["Failed"] == 0, [one.to_json() for one in q.tasks("Failed")]
    took = time.monotonic() - start
    until(lambda: not any(processes(q).values()))
    assert Watch(place(q)).owner() is None
    runs = effects.read_text().split()
    assert set(runs) == {str(id) for id in range(1, LEVELS * WIDTH + 1)}
    with contextlib.closing(sqlite3.connect(next(place(q).path.glob("store/*.sqlite")))) as db:
        rows = db.execute("SELECT task, count(*), sum(state = 'Succeeded') FROM attempt GROUP BY task").fetchall()
    assert len(rows) == LEVELS * WIDTH
    assert {recorded for _, _, recorded in rows} == {1}
    again = sum(attempts - 1 for _, attempts, _ in rows)
    each = ", ".join(f"{killed.count(kind)} {kind}s" for kind in sorted(set(killed)))
    figure(
        f"{len(killed)} kills ({each}) in {took:.0f} s, {len(runs) - len(rows)} effects twice, "
        f"{again} attempts lost of {len(rows) + again}"
    )


def tasks(q):
    """How many there are in each state."""
    return q.status()["ntasks"]


def kill(q, also):
    """Kill something now and then, until that was often enough, or all is done; returns what was killed.

    Something has succeeded in between: else, where workers are slow to begin, one task would cost so many that it is taken to be the cause.
    """
    chance, killed, before = random.Random(7), [], -1
    while len(killed) < KILLS and (now := tasks(q)["Succeeded"]) < LEVELS * WIDTH:
        kind = chance.choice(PARTS)
        if now > before and (there := processes(q)[kind]):
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(there).send_signal(signal.SIGKILL)
                killed.append(kind)
                before = now
        if more := also(chance):
            killed.append(more)
        time.sleep(chance.random() * 0.5)  # no event is waited for: the moment is what varies
    return killed


def test_killed_at_random(isolated, figure):
    """Chained tasks, and random SIGKILLs of all that drains them: none lost, each result recorded once, no manual step."""
    drain(hpc.Queue.create("extract"), figure)


@pytest.mark.site
@pytest.mark.skipif(not LONG, reason="takes many minutes: make lab-long")
def test_killed_at_random_in_slurm(sandbox, isolated, monkeypatch, figure):
    """The same in a real Slurm, whose own daemons on the nodes are killed, too, and come again as they would after a restart."""
    for name, value in sandbox.slurm_env.items():
        monkeypatch.setenv(name, value)
    entry = f"{{batch: slurm, partition: main, python: {sys.executable}}}"
    isolated.configure(f"hpcnb: {{default-site: box, sites: {{box: {entry}}}}}")

    def slurmd(chance):
        if chance.random() > 1 / 25:
            return ""
        os.kill(chance.choice([one.pid for one in sandbox._owned() if one.name == "slurmd"]), signal.SIGKILL)
        sandbox.up()
        return "slurmd"

    drain(hpc.Queue.create("extract"), figure, slurmd)
