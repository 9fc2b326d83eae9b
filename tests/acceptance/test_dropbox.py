"""The drop box on the embedded site: from the command line, with pilots that come and go, and with a runner that is killed at random."""

from __future__ import annotations

import collections
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from hpcnb.cli import commands
from hpcnb.dropbox import site
from hpcnb.dropbox.box import Box
from hpcnb.dropbox.runner import Runner, Submitter
from hpcnb.dropbox.site import Drainer, Workspaces
from tests.isolation import isolation
from tests.unit.dropbox.others import leave, outcome, submit

pytestmark = pytest.mark.slow

COPY = "#!/bin/sh\necho <<input>> >> {effects}\ncp input/<<input>> output/<<output>>\n"
KILLS = 15


@pytest.fixture(scope="module")
def home():
    """One user, without an agent at first, for all tests."""
    with pytest.MonkeyPatch.context() as monkeypatch, isolation(monkeypatch) as place:
        (place.folder / "templates").mkdir()
        effects = place.folder / "effects"
        (place.folder / "templates" / "copy.template").write_text(COPY.format(effects=effects))
        yield place


def jobs(home, box, count, name="j"):
    """Leave jobs, each with an input and an output."""
    box.mkdir(exist_ok=True)
    for number in range(count):
        path = home.folder / f"{name}{number}.in"
        path.write_text(str(number))
        maps = {"input_map": {"input": str(path)}, "output_map": {"output": str(box / f"{name}{number}.out")}}
        leave(box, f"{name}{number}", {"script": "copy", **maps})


def runs(queue="dropbox", *, home):
    """The batch jobs that were submitted for a queue."""
    return list((home.home / "queues" / queue / "runs").iterdir())


def test_one_pilot_drains_all(home, capsys):
    """From the command line: jobs in, outputs and results out, all of them by one batch job, and nothing is left."""
    box = home.folder / "one"
    jobs(home, box, 6)
    leave(box, "bad", {"script": "copy"})
    words = ["run", str(box), "--templates", str(home.folder / "templates"), "--period", "0.1", "--until-idle"]
    commands.main(["dropbox", *words, "--queue", "one", "--workers", "2"], standalone_mode=False)
    assert [outcome(box, f"j{number}")["status"] for number in range(6)] == ["ok"] * 6
    assert [(box / f"j{number}.out").read_text() for number in range(6)] == [str(number) for number in range(6)]
    assert "<<input>> in the template has no value" in outcome(box, "bad")["message"]
    assert len(runs("one", home=home)) == 1
    assert list((home.home / "workspaces").iterdir()) == []
    said = capsys.readouterr().out
    assert said.count(": submitted, in ") == said.count(": finished: 0") == 6
    assert said.count(" carries them out") == 1


def test_the_runner_can_exit_while_a_job_is_being_uploaded(home, monkeypatch):
    """A job that another program is still uploading when nothing else is left to do is carried out once it is whole."""
    box = home.folder / "uploaded"
    jobs(home, box, 2, "u")
    workspaces = Workspaces("", str(home.folder / "theirs"))
    said = []
    runner = Runner(None, None, Drainer(workspaces, "uploads", {"workers_per_node": 1}), said.append)
    first = submit(box / "u0.job", home.folder / "theirs", "#!/bin/sh\n")
    second = submit(box / "u1.job", home.folder / "theirs", "#!/bin/sh\n")
    (second / "job.sh").chmod(0o640)
    runner.run(0.1, until_idle=True)
    assert (first / "finished.out").exists()
    assert not (second / "finished.out").exists()
    (second / "job.sh").chmod(0o750)
    runner.run(0.1, until_idle=True)
    assert (second / "finished.out").exists()
    assert len(said) == len(runs("uploads", home=home)) <= 2


def test_a_job_that_takes_longer_than_the_walltime(home, monkeypatch):
    """It is finished with the reason, and no further batch job is spent on it; others are carried out all the same."""
    monkeypatch.setattr(site, "_PARTING", 1.0)
    box = home.folder / "long"
    (home.folder / "templates" / "sleep.template").write_text("#!/bin/sh\nsleep 600\n")
    jobs(home, box, 1, "short")
    leave(box, "a-long-one", {"script": "sleep"})
    workspaces = Workspaces("", str(home.folder / "limited"))
    ours = Box.at(box)
    submitter = Submitter(ours, home.folder / "templates", workspaces, keep=False, say=print)
    drainer = Drainer(workspaces, "limited", {"workers_per_node": 1, "walltime": "3s"})
    Runner(ours, submitter, drainer, print).run(0.1, until_idle=True)
    found = outcome(box, "a-long-one")
    assert (found["status"], found["stderr"]) == ("error", "its job ended before it did\n")
    assert outcome(box, "short0")["status"] == "ok"


# Forks runners, so that each begins at once, and kills each at a random moment.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import hpcnb.agent.client, hpcnb.queue.launch
from hpcnb.dropbox import box as boxes, runner, site
boxes.SETTLED = 0.02
folder, box, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
chance = random.Random(5)

def run(until_idle):
    workspaces = site.Workspaces("", "")
    ours = boxes.Box.at(box)
    submitter = runner.Submitter(ours, folder / "templates", workspaces, keep=False, say=lambda line: None)
    drainer = site.Drainer(workspaces, "dropbox", {"workers_per_node": 2})
    runner.Runner(ours, submitter, drainer, print).run(0.01, until_idle=until_idle)

for _ in range(kills):
    if not (pid := os.fork()):
        run(False)
    time.sleep(chance.random() * 0.25)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("killed", flush=True)
run(True)
"""


def test_killed_at_random(home, figure):
    """A runner that is killed at any moment and started again: each job is run once, and finished exactly once; nothing is left."""
    box, count = home.folder / "killed", 24
    effects = home.folder / "effects"
    effects.write_text("")
    jobs(home, box, 1, "k")  # the pilot starts with it, and has come when the others do
    finished: collections.Counter[str] = collections.Counter()
    wrong = []

    def take():  # as a program that waits does: it reads the file, and removes it
        for path in box.glob("*.job.finished"):
            found = yaml.safe_load(path.read_text())
            path.unlink()
            finished[path.name] += 1
            if found["job"]["status"] != "ok" or not Path(found["output_map"]["output"]).exists():
                wrong.append(found)

    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER, home.folder, box, str(KILLS)], stdout=subprocess.PIPE, text=True
    )
    left = list(range(1, count))
    try:
        while killer.poll() is None or any(box.glob("*.job*")):
            take()
            if left:  # more and more of them come while runners die
                jobs(home, box, 1, f"k{left.pop()}-")
            threading.Event().wait(0.02)
        take()
    finally:
        killer.kill()
    said = killer.communicate()[0].split("\n")
    ran = collections.Counter(effects.read_text().split())
    figure(f"{said.count('killed')} runners killed, {len(ran)} jobs, {len(runs(home=home))} batch jobs")
    assert wrong == []
    assert killer.returncode == 0, said
    assert set(finished.values()) == set(ran.values()) == {1}
    assert len(finished) == len(ran) == count
    assert list((home.home / "workspaces").iterdir()) == []
    assert [path.name for path in (box / ".hpcnb").glob("*/*.job")] == []
