"""Queues that are drained by jobs of a real Slurm, with nobody at home."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

import hpcnb as hpc
from hpcnb.pilot.queue.lease import Watch
from tests.figures import patient
from tests.site.account import until
from tests.unit.queues.place import place

pytestmark = [pytest.mark.site, pytest.mark.slow]

LONG = bool(os.environ.get("HPCNB_LAB_LONG"))


@pytest.fixture
def q(sandbox, isolated, monkeypatch):
    """An empty queue on the login node of a Slurm site; no job of it is left."""
    for name, value in sandbox.slurm_env.items():
        monkeypatch.setenv(name, value)
    entry = f"{{batch: slurm, partition: main, python: {sys.executable}}}"
    isolated.configure(f"hpcnb: {{default-site: box, sites: {{box: {entry}}}}}")
    yield hpc.Queue.create("extract")
    subprocess.run(["scancel", "--me"], check=True)
    until(lambda: not jobs())


def jobs():
    """The ids of the jobs that are there, whatever they do."""
    return subprocess.check_output(["squeue", "--noheader", "--me", "--format=%i %t"], text=True).split("\n")[:-1]


def count(q, state="Succeeded"):
    return q.status()["ntasks"][state]


def logs(q):
    return "".join(path.read_text() for path in place(q).path.glob("runs/*/job.log"))


@pytest.mark.timeout(1800 if LONG else 180)
def test_a_chain_of_walltimes(q, figure):
    """Work that needs several walltimes is done by several jobs, one after the other, with nobody there after `launch`."""
    tasks, each, walltime = (200, 3, 30) if LONG else (24, 0.5, 6)
    ids = q.add_multiple([f"sleep {each}; echo $SLURM_JOB_ID"] * tasks)
    q.add("echo merged", requires=ids)
    launch = f"import hpcnb; hpcnb.Queue.connect('extract').launch(2, pack=True, walltime='{walltime}s')"
    subprocess.run([sys.executable, "-c", launch], check=True)
    until(lambda: count(q) == tasks + 1, within=1500 if LONG else 100)
    until(lambda: not jobs())
    used = {q.log(id).strip() for id in ids}
    figure(f"{tasks} tasks of {each:g} s in {len(used)} jobs of {walltime} s")
    assert len(used) > 1
    assert Watch(place(q)).owner() is None
    assert q.log(tasks + 1) == "merged\n"
    for id in ids:
        states = [attempt["state"] for attempt in q.task(id)["attempts"]]
        assert states.count("Succeeded") == 1
        assert set(states) <= {"Succeeded", "Killed", "Lost"}


def test_who_cancels_a_job_cancels_its_successor(q):
    """A job that is cancelled by hand has the one that waits for its end do nothing; what is left stays in the queue."""
    begun = place(q) / "begun"
    q.add_multiple(["true", f"touch {begun}; sleep 600; true", "true"])
    (job,) = q.launch(walltime="5m")
    until(lambda: any(line.endswith("PD") for line in jobs()))
    until(begun.exists)
    until(
        lambda: time.time() - begun.stat().st_mtime > 6
    )  # Slurm may end the `sleep` before the shell: this task's end is doubted for half a second
    subprocess.run(["scancel", job], check=True)
    until(lambda: not jobs())
    assert "the job before this one was cancelled, and so was all that was to follow it" in logs(q)
    assert (count(q), count(q, "Failed")) == (1, 0)
    assert Watch(place(q)).owner() is None


def test_a_task_that_takes_longer_than_the_walltime(q):
    """Jobs that finish nothing are not followed by further ones; the task is Killed, and can be gone on with."""
    q.add("sleep 600")
    q.launch(walltime=f"{patient(5):.0f}s")  # so long that the task has begun by then
    until(lambda: count(q, "Killed") == 1)
    until(lambda: not jobs())
    assert q.task(1)["attempts"][-1]["error"] == "its job ended before it did"
    assert "ended before the queue was empty" in logs(q)
    assert q.revive() == 1


def test_several_jobs_and_nodes_share_a_queue(q):
    """Of several jobs one owns the queue, and all work; a job of two nodes has workers on both."""
    q.add_multiple(["sleep 0.2; echo $SLURM_JOB_ID $SLURMD_NODENAME"] * 40)
    assert len(q.launch(2, walltime="2m")) == 2
    q.launch(2, pack=True, nodes=2, walltime="2m")
    until(lambda: count(q) == 40)
    until(lambda: not jobs())
    assert len({q.log(id).split()[0] for id in range(1, 41)}) > 1


def workers(q):
    """The processes that work for a queue in its jobs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if "worker" in words and words[-1].startswith(str(place(q).path)):
                found.append(process)
    return found


def test_a_worker_is_killed(q):
    """A worker that is killed is replaced, and its task is carried out again by itself within 30 s."""
    q.add_multiple(["echo $HPCNB_ATTEMPT; sleep $((HPCNB_ATTEMPT > 1 ? 0 : 600))"])
    q.launch(walltime="5m")
    until(lambda: count(q, "Running") == 1)
    os.kill(until(lambda: workers(q))[0].pid, signal.SIGKILL)
    until(lambda: count(q) == 1, within=30)
    assert [attempt["state"] for attempt in q.task(1)["attempts"]] == ["Lost", "Succeeded"]
    assert q.log(1) == "2\n"


def test_a_workflow_that_grows(q, tmp_path):
    """A workflow is loaded; what its first task adds when it runs is done by all workers of the job, who have waited for it."""
    grow = {"_fw_name": "PyTask", "func": "time.sleep", "args": [1]}
    meet = f"touch {tmp_path}/seen.$PPID; until test $(ls {tmp_path}/seen.* | wc -l) = 2; do sleep 0.1; done"
    lines = f"for n in 1 2 3 4 5 6; do printf '%s\\n' '{json.dumps({'child': meet})}'; done >> $HPCNB_ACTIONS"
    first = {"fw_id": 1, "spec": {"_tasks": [grow, {"_fw_name": "ScriptTask", "script": lines}]}}
    last = {"fw_id": 2, "spec": {"_tasks": [{"_fw_name": "ScriptTask", "script": "echo $SLURM_JOB_ID"}]}}
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps({"fws": [last, first], "links": {"1": [2]}}))
    q.load(path)
    (job,) = q.launch(2, pack=True, walltime="2m")
    until(lambda: count(q) == 8)
    assert q.log(2) == f"{job}\n"
    assert len({q.task(id)["attempts"][-1]["worker"] for id in range(3, 9)}) == 2


def test_what_slurm_refuses(q):
    """A job that cannot be is an error that says why; nothing is submitted."""
    with pytest.raises(hpc.SubmissionRejected, match="partition"):
        q.launch(partition="nowhere")
    with pytest.raises(hpc.ConfigError, match="there is no argument 'walltme'"):
        q.launch(walltme="1h")
    assert jobs() == []


def test_from_afar(sandbox, isolated, short_path):
    """The same queue from a machine that reaches the site by SSH alone: made, filled, launched, looked at, and removed."""
    entry = sandbox.site_entry() | {"home": str(short_path())}
    isolated.configure(json.dumps({"hpcnb": {"default-site": "box", "sites": {"box": entry}}}))
    q = hpc.Queue.create("far")
    nasty = "printf '%s' 'it''s \"ü\"; \udcff $(x)'"
    ids = q.add_multiple([nasty, *["echo $SLURM_JOB_ID"] * 9])
    q.add("echo merged", requires=ids)
    with pytest.raises(TypeError):
        q.add_multiple(["true", object()])
    with pytest.raises(hpc.QueueError, match="no task 99 to wait for"):
        q.add("true", requires=[99])
    assert q.launch(2, pack=True, walltime="2m")[0].isdecimal()
    until(lambda: count(q) == 11)
    assert q.log(1) == 'its "ü"; � $(x)'
    assert q.log(11) == "merged\n"
    assert [task.task for task in q.tasks()][:2] == [nasty, "echo $SLURM_JOB_ID"]
    q.add_multiple(range(3))
    q.launch(func=lambda x: x * 10, walltime="2m")
    until(lambda: count(q) == 14)
    assert [task.result for task in q.tasks()][-3:] == [0, 10, 20]
    assert [str(one) for one in hpc.queues()] == [str(q)]
    with pytest.raises(hpc.QueueError, match="cannot be drained here"):
        q.do()
    q.add("never")
    claim = q.get()
    assert claim.task == "never"
    claim.succeed()
    with pytest.raises(hpc.QueueError, match="no longer ours"):
        claim.fail("late")
    q.delete()
    with pytest.raises(hpc.QueueError, match="there is no queue 'far'"):
        hpc.Queue.connect("far")


def test_few_jobs_wait(q):
    """Of many jobs only a few wait in the batch system; each that has begun submits the next one, with nobody there."""
    gate = place(q) / "gate"
    q.add_multiple([f"echo $SLURM_JOB_ID >> {gate}.jobs; until [ -e {gate} ]; do sleep 0.1; done"] * 3)
    (first,) = q.launch(3, queued=1, walltime="5m")
    begun = gate.with_name("gate.jobs")
    until(lambda: begun.exists() and len(set(begun.read_text().split())) == 3)
    assert first in begun.read_text().split()
    gate.touch()
    until(lambda: count(q) == 3)
    until(lambda: not jobs())


def test_the_shape_that_starts_soonest(q):
    """So many core-hours are asked for in each shape that fits; the one that Slurm would start soonest is submitted, and explained."""
    q.add_multiple(["echo $SLURM_JOB_NUM_NODES"] * 4)
    ask = ["sbatch", "--parsable", "--nodes=1", "--exclusive", "--time=10", "--output=/dev/null", "--wrap=sleep 600"]
    blocker = subprocess.check_output(ask, text=True).strip()
    until(lambda: f"{blocker} R" in jobs())
    launched = q.launch(core_hours=1, nodes=2, walltime="3h")
    assert "1 core-hours in one job: 1 node of" in str(launched)
    rows = str(launched).splitlines()[3:]
    assert rows[0].startswith("→")
    until(lambda: count(q) == 4)
    assert q.log(1) == "1\n"
    subprocess.run(["scancel", blocker], check=True)
    until(lambda: not jobs())
    q.add_multiple(["echo $SLURM_JOB_NUM_NODES"] * 4)
    assert "2 nodes of" in str(q.launch(core_hours=1, nodes=2, walltime="3h"))
    until(lambda: count(q) == 8)
    with pytest.raises(hpc.QueueError, match="nodes of . cores for 1m are"):
        q.launch(core_hours=400, nodes=2, walltime="1m")
    with pytest.raises(hpc.QueueError, match="refuses a job") as refused:
        q.launch(core_hours=1, account="nobody", partition="main", options={"--reservation": "none"})
    assert "eservation" in refused.value.evidence
