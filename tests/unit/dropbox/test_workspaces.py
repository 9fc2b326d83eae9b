"""Workspaces at a site: filled by the piece, carried out by a queue's tasks once each, and given up when that cannot be."""

from __future__ import annotations

import io
import os

import pytest

import hpcnb as hpc
from hpcnb.dropbox import site
from hpcnb.dropbox.job import Refused
from hpcnb.dropbox.site import Workspaces
from hpcnb.pilot import workspaces as there


@pytest.fixture
def spaces(isolated):
    return Workspaces("", "")


@pytest.fixture
def filled(spaces):
    """Make a workspace with a script."""

    def fill(name, script="#!/bin/sh\necho said; echo oops >&2\n", **inputs):
        spaces.stage(path := f"{spaces.path}/{name}", script, inputs)
        return path

    return fill


def carry_out(spaces, *, alone=False):
    found = spaces.carry_out("dropbox", alone=alone)
    return found["added"], found["left"]


def test_files_of_all_sizes(spaces, monkeypatch, tmp_path):
    """A file arrives as it was, and comes back, whatever its size is to the pieces in which it travels."""
    for module in (site, there):
        monkeypatch.setattr(module, "PIECE", 10)
    data = {f"of {size}": os.urandom(size) for size in (0, 1, 9, 10, 11, 20, 35)}
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    path = f"{spaces.path}/a"
    spaces.stage(path, "x" * 25, {name: str(tmp_path / name) for name in data})
    for name, content in data.items():
        spaces.fetch(f"{path}/input/{name}", back := io.BytesIO())
        assert back.getvalue() == content
    assert sorted(one.name for one in there.Path(path).iterdir()) == ["input", "job.sh", "output"]
    spaces.stage(path, "other", {})  # it is ready, and stays as it is
    spaces.stage(path, "other", {"of 0": "/no/such/file"})
    assert len((there.Path(path) / "job.sh").read_text()) == 25


def test_no_room_at_the_site(spaces, filled, monkeypatch):
    """A site without room is the job's error, with the file and the cause."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(there.os, "fchmod", full)
    with pytest.raises(Refused, match=r"cannot write .*/a/job.sh: No space left on device"):
        filled("a")


def test_each_is_carried_out_once(spaces, filled):
    """A ready workspace is one task, also when we are killed before we have written that down; one that is being filled is none."""
    path = filled("a b'c")
    (there.Path(spaces.path) / "filling" / "input").mkdir(parents=True)
    late = there.Path(filled("late")) / "job.sh"
    late.chmod(0o640)  # as other programs leave it, until all of it is there
    assert carry_out(spaces) == (1, {"Pending": 1, "Running": 0, "Killed": 0})
    there.Path(path, ".task").unlink()
    assert carry_out(spaces) == (1, {"Pending": 1, "Running": 0, "Killed": 0})
    q = hpc.Queue.connect("dropbox")
    assert len(q) == 1
    q.do()
    code, *times = (there.Path(path) / "finished.out").read_text().splitlines()
    assert (code, len(times)) == ("0", 2)
    assert spaces.finished([path, str(late.parent), f"{spaces.path}/gone"]) == {path, f"{spaces.path}/gone"}
    result = spaces.result(path)
    assert (result["rc"], result["stdout"], result["stderr"]) == (0, "said\n", "oops\n")
    assert carry_out(spaces) == (0, {"Pending": 0, "Running": 0, "Killed": 0})
    late.chmod(0o750)
    assert carry_out(spaces)[0] == 1
    q.do()
    q.rerun(force=True)
    with open(f"{path}/job.sh", "w") as file:
        file.write("exit 1")
    q.do()  # what is finished is not begun again
    assert q.status()["ntasks"]["Succeeded"] == 2


def test_finished_by_another_program(spaces, filled):
    """Another program's `finished.out`, half written, is not there yet; whatever else it holds makes no error."""
    path = there.Path(filled("a"))
    for text, ended in (("", False), ("12", False), ("12\n", True), ("twelve\n2026-01-02 03:04:05.678\n", True)):
        (path / "finished.out").write_text(text)
        assert (spaces.finished([str(path)]) == {str(path)}) is ended
    for text in ("--1", "9" * 5000, "1_0", "٣", "twelve"):
        (path / "finished.out").write_text(f"{text}\n2026-01-02 03:04:05.678\n")
        assert spaces.result(str(path))["rc"] is None
    assert spaces.result(str(path)) | {"stdout": ""} == {
        "rc": None, "stdout": "", "stderr": "", "start": "2026-01-02 03:04:05.678", "end": None
    }  # fmt: skip


def test_a_task_that_cannot_finish(spaces, filled):
    """A workspace whose task ends without finishing it is finished with the reason, so that nobody waits for ever."""
    path = filled("a", "#!/bin/sh\nmkdir .finished.out\n")
    carry_out(spaces)
    hpc.Queue.connect("dropbox").do()
    assert spaces.finished([path]) == set()
    carry_out(spaces)
    assert spaces.finished([path]) == {path}
    result = spaces.result(path)
    assert result["rc"]
    assert result["stderr"].startswith("exit status 2")


def test_a_task_that_was_killed(spaces, filled):
    """A killed task's workspace is gone on with by the next job; when there is none it is finished, with the reason."""
    path = filled("a")
    carry_out(spaces)
    hpc.Queue.connect("dropbox").set_state(1, "Killed")
    assert carry_out(spaces) == (0, {"Pending": 0, "Running": 0, "Killed": 1})
    assert spaces.finished([path]) == set()
    assert carry_out(spaces, alone=True) == (0, {"Pending": 0, "Running": 0, "Killed": 0})
    assert spaces.result(path)["rc"] == -1
    assert "its task 1 has ended without a word" in spaces.result(path)["stderr"]


def test_a_queue_that_was_deleted(spaces, filled):
    """When the queue was removed, or made anew, its workspaces are tasks of the new one."""
    filled("a")
    carry_out(spaces)
    hpc.Queue.connect("dropbox").delete()
    hpc.Queue.create("dropbox").add("true")
    carry_out(spaces)
    assert carry_out(spaces)[0] == 1
    assert len(hpc.Queue.connect("dropbox")) == 2


def test_what_another_user_has_left(spaces, filled):
    """A workspace that another user has made is not carried out as us."""
    path = filled("a")
    try:
        os.chown(path, 12345, -1)
    except PermissionError:
        pytest.skip("only root can give a folder away")
    assert carry_out(spaces) == (0, {"Pending": 0, "Running": 0, "Killed": 0})
