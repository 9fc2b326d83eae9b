"""Jobs that drain a queue: their number, their shape, and those that come after them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
import sys
from pathlib import Path

import pytest

import hpcnb as hpc
from hpcnb.pilot.queue import node
from hpcnb.pilot.queue.lease import Watch
from hpcnb.pilot.queue.pilot import PROGRESS, Heirs, QueueRun
from hpcnb.pilot.queue.worker import OVER, STOPPED
from hpcnb.queue.shape import Shape, shapes, taken
from hpcnb.views.launch import shapes_text
from tests.figures import patient
from tests.site.account import until
from tests.unit.queues.place import place


@pytest.fixture
def q(isolated):
    """An empty queue of this machine."""
    return hpc.Queue.create("extract")


def drained(q):
    """Whether all tasks have succeeded, and nobody owns the queue any more."""
    tasks = q.status()["ntasks"]
    return tasks["Succeeded"] == sum(tasks.values()) and Watch(place(q)).owner() is None


def test_the_shape_that_starts_soonest():
    """Of the shapes of so many core-hours the one that starts soonest is taken; of those that start together, the one that ends first."""
    tried = shapes(400, nodes=8, cores=48, walltime=4 * 3600)
    busy = [Shape(nodes=one.nodes, cores=48, walltime=one.walltime, starts=1e9 + one.nodes * 3600) for one in tried]
    assert taken(busy).nodes == 3
    idle = [Shape(nodes=one.nodes, cores=48, walltime=one.walltime, starts=1e9 + one.nodes) for one in tried]
    assert taken(idle).nodes == 8
    mixed = [*idle[:2], *(Shape(nodes=9, cores=48, walltime=60, refused="\033[1mtoo many") for _ in range(2))]
    text = shapes_text(mixed, taken(mixed), 400, 1e9)
    assert text.startswith("400 core-hours in one job: 4 nodes of 48 cores; of those that start soonest it ends first.")
    assert "\033" not in text
    with pytest.raises(hpc.QueueError, match=r"refuses a job of so many core-hours in each shape") as refused:
        taken(mixed[2:])
    assert "too many" in refused.value.evidence
    with pytest.raises(hpc.QueueError, match="8 nodes of 48 cores for 1h are 384"):
        shapes(400, nodes=8, cores=48, walltime=3600)
    assert taken([Shape(nodes=n, cores=1, walltime=60) for n in (1, 2)]).nodes == 1  # of which nothing is known


@pytest.mark.parametrize(
    ("count", "asked", "said"),
    [
        (0, {}, r"launch\(0\)"),
        (2, {"nodes": 2}, "nodes= of 2 and more are for pack=True"),
        (2, {"queued": 0}, "queued= says how many of several jobs wait"),
        (2, {"queued": 1, "pack": True}, "queued= says how many"),
        (2, {"core_hours": 1}, "core_hours= is about one job"),
        (1, {"core_hours": -1}, "cores times hours"),
        (1, {"core_hours": 1, "walltme": "1h"}, "there is no argument 'walltme'"),
        (1, {"core_hours": 10**6}, "are more than one job can have here"),
    ],
)
def test_what_makes_no_sense(q, count, asked, said):
    """What cannot be launched is an error that says why; nothing is submitted."""
    with pytest.raises(hpc.HPCError, match=said):
        q.launch(count, **asked)
    assert not (place(q) / "runs").exists()


@pytest.mark.slow
def test_a_chain_of_walltimes(q):
    """Where jobs are plain processes, too, one that comes to its end is followed by another one, until nothing is left."""
    walltime = round(patient(3))
    ids = q.add_multiple(["sleep 0.5; echo $HPCNB_JOB_ID"] * (4 * walltime))
    launch = f"import hpcnb; print(hpcnb.Queue.connect('extract').launch(2, pack=True, walltime='{walltime}s'))"
    said = subprocess.run([sys.executable, "-c", launch], check=True, capture_output=True, text=True).stdout
    assert "drains queue extract with 2 workers, up to" in said
    assert said.endswith("How far it is: hpcnb queue status extract\n")
    until(lambda: drained(q), within=60 + 10 * walltime)
    used = {q.log(id) for id in ids}
    assert len(used) > 1
    log = next(place(q).path.glob("runs/*/job.log"))
    until(lambda: "nothing is left to do" in log.read_text())
    jobs = {job.strip() for job in used}
    assert jobs == {q.task(id)["attempts"][-1]["job"] for id in ids}


@pytest.mark.slow
def test_few_at_a_time(q):
    """Of many jobs only a few are submitted; when one has begun it submits the next one."""
    begun, go = place(q) / "begun", place(q) / "go"
    q.add_multiple([f"echo $HPCNB_JOB_ID >> {begun}; until [ -e {go} ]; do sleep 0.1; done"] * 5)
    jobs = q.launch(5, queued=2, walltime="5m")
    assert len(jobs) == 2
    assert "5 jobs" in str(jobs)
    assert "at most 2 wait at a time" in str(jobs)
    until(lambda: begun.exists() and len(set(begun.read_text().split())) == 5)
    go.touch()
    until(lambda: drained(q))


@pytest.mark.slow
def test_so_many_core_hours(q):
    """A machine that is one node has one shape for so many core-hours: it is explained, and its workers use all cores."""
    q.add_multiple(["true"] * 10)
    said = str(q.launch(core_hours=2, walltime="3h"))
    assert "2 core-hours in one job: 1 node of" in said
    assert "→" in said
    until(lambda: drained(q))


@pytest.mark.parametrize(
    ("endings", "code"), [((OVER, STOPPED), OVER), ((STOPPED, 1), STOPPED), ((1, -9), node.BROKEN)]
)
async def test_how_a_node_ends(monkeypatch, endings, code):
    """A node whose workers die again and again before they can do anything does not say that nothing is left to do."""
    monkeypatch.setattr(node, "AGAIN", 0.0)
    monkeypatch.setattr(node, "IN_VAIN", 3)
    begun = []

    async def worker(*_, **__):
        ending = endings[min(len(begun), len(endings) - 1)]
        begun.append(ending)
        how = f"kill -9 $$; exit {ending}" if ending < 0 else f"exit {ending}"
        return await start("sh", "-c", how)

    start = asyncio.create_subprocess_exec
    monkeypatch.setattr(asyncio, "create_subprocess_exec", worker)
    assert await node.Node("nowhere", 2).run() == code


@pytest.mark.parametrize("answers", [True, False])
async def test_who_follows_a_cancelled_job_knows_it(tmp_path, monkeypatch, answers):
    """Also when the job before it ended before it had heard which one it has submitted."""
    submitted = tmp_path / "submitted"
    run = QueueRun(
        queue="",
        path=str(tmp_path),
        workers=1,
        walltime=60,
        directory="",
        successor=["sh", "-c", f"touch {submitted}; {'echo 8' if answers else 'sleep 600'}"],
        cancelled=["sh", "-c", "test $1 = 7 && echo cancelled", "sh"],
    )
    monkeypatch.setenv("HPCNB_JOB_ID", "7")
    submitting = asyncio.create_task(Heirs(run).hear(PROGRESS))
    await asyncio.to_thread(until, submitted.exists)
    if answers:
        await submitting
    else:
        submitting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await submitting
    assert not await Heirs(run).disinherited()  # it goes on itself, as when its pilot was killed alone
    monkeypatch.setenv("HPCNB_JOB_ID", "8")
    assert await Heirs(run).disinherited()
    monkeypatch.setenv("HPCNB_JOB_ID", "9")
    assert await Heirs(run).disinherited() is not answers


async def test_a_full_disk_keeps_no_job_from_its_successor(tmp_path, monkeypatch):
    """It is submitted once, though what it is called cannot be written down."""
    submitted = tmp_path / "submitted"
    submit = ["sh", "-c", f"echo x >> {submitted}; echo 8"]
    run = QueueRun(queue="", path=str(tmp_path), workers=1, walltime=60, directory="", successor=submit)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("HPCNB_JOB_ID", "7")
    monkeypatch.setattr(Path, "write_text", full)
    heirs = Heirs(run)
    for _ in range(2):
        await heirs.hear(PROGRESS)
    assert submitted.read_bytes() == b"x\n"
