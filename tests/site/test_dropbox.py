"""Drop boxes whose jobs a real Slurm carries out: on its login node, and from a machine that reaches it by SSH alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpcnb.dropbox import site
from hpcnb.dropbox.box import Box
from hpcnb.dropbox.runner import Runner, Submitter
from hpcnb.dropbox.site import Drainer, Workspaces
from tests.site.account import until
from tests.unit.dropbox.others import leave, outcome

pytestmark = [pytest.mark.site, pytest.mark.slow]

SHOW = "#!/bin/bash\ncp <<workspace>>/input/<<input>> output/<<output>>; echo $SLURM_JOB_ID <<sif>>; exit <<code>>\n"
ODD = "it's; $(x).mp3"


@pytest.fixture
def slurm(sandbox, isolated, monkeypatch, tmp_path):
    """Templates, an input, and a Slurm of which no job is left."""
    for name, value in sandbox.slurm_env.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "box").mkdir()
    (tmp_path / "show.template").write_text(SHOW)
    (tmp_path / ODD).write_bytes(bytes(range(256)) * 400)
    yield sandbox
    subprocess.run(["scancel", "--me"], check=True)
    until(lambda: not subprocess.check_output(["squeue", "--noheader", "--me"]))


def left(folder, name, code=0):
    """Leave a job."""
    maps = {"input_map": {"input": str(folder / ODD)}, "output_map": {"output": str(folder / f"{name}.out")}}
    return leave(folder / "box", name, {"script": "show", "args": {"code": code}, **maps})


def halves(folder):
    """A drop box, who sees to it, and who has its jobs carried out."""
    workspaces = Workspaces("", "")
    ours = Box.at(folder / "box")
    submitter = Submitter(ours, folder, workspaces, keep=False, say=print)
    return ours, submitter, Drainer(workspaces, "dropbox", {"workers_per_node": 1, "walltime": "5m"})


def check(folder, names):
    found = [outcome(folder / "box", name) for name in names]
    assert [one["status"] for one in found] == ["ok"] * len(names)
    assert {one["stdout"].split(" ", 1)[1] for one in found} == {"/sw/sif\n"}
    assert all((folder / f"{name}.out").read_bytes() == (folder / ODD).read_bytes() for name in names)
    return {one["stdout"].split()[0] for one in found}


def test_on_the_login_node(slurm, isolated, tmp_path):
    """Several jobs are carried out by one batch job of Slurm; one that fails is an error of its own."""
    entry = {"batch": "slurm", "partition": "main", "python": sys.executable, "settings": {"sif": "/sw/sif"}}
    isolated.configure(json.dumps({"hpcnb": {"default-site": "box", "sites": {"box": entry}}}))
    for name in "abc":
        left(tmp_path, name)
    left(tmp_path, "bad", 3)
    Runner(*halves(tmp_path), print).run(0.1, until_idle=True)
    assert len(check(tmp_path, "abc")) == 1
    assert outcome(tmp_path / "box", "bad")["rc"] == 3
    assert not (tmp_path / "bad.out").exists()


def test_from_afar(slurm, isolated, tmp_path, short_path, monkeypatch):
    """The same from a machine that has nothing but SSH: files go there and come back, in pieces."""
    monkeypatch.setattr(site, "PIECE", 60_000)
    entry = slurm.site_entry() | {"home": str(short_path()), "settings": {"sif": "/sw/sif"}}
    isolated.configure(json.dumps({"hpcnb": {"default-site": "box", "sites": {"box": entry}}}))
    left(tmp_path, "a")
    Runner(*halves(tmp_path), print).run(0.1, until_idle=True)
    assert all(job.isdecimal() for job in check(tmp_path, "a"))
    assert list((Path(entry["home"]) / "workspaces").iterdir()) == []
