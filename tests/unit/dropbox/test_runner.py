"""A drop box's directory under our runner: every step of the format, its first implementation's faults, and bad input."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

import hpcnb as hpc
from hpcnb.cli import commands
from hpcnb.dropbox import box as boxes
from hpcnb.dropbox import waiting, written
from hpcnb.dropbox.box import Box
from hpcnb.dropbox.runner import AT_ONCE, Runner, Submitter
from hpcnb.dropbox.site import Workspaces
from hpcnb.pilot.queue import lease
from tests.isolation import isolation
from tests.site.account import until
from tests.unit.dropbox.others import collect, leave, outcome, run_workspaces, submit

COPY = "#!/bin/sh\ncat input/<<input>> > output/<<output>>; echo done\n"


class Yard:
    """A drop box, templates, and workspaces on this machine."""

    def __init__(self, folder):
        self.folder = folder
        self.box = folder / "box"
        self.workspaces = folder / "workspaces"
        self.said = []
        self.workspaces.mkdir()
        (folder / "templates").mkdir()
        self.template("copy", COPY)
        self.submitter = self.again()

    def again(self, **more):
        """A runner's first half, as after a restart."""
        self.ours = Box.at(self.box)
        assert self.ours.own(self.ours.watch())
        there = Workspaces("", str(self.workspaces))
        return Submitter(self.ours, self.folder / "templates", there, say=self.said.append, **{"keep": False} | more)

    def template(self, name, text):
        (self.folder / "templates" / f"{name}.template").write_text(text)

    def job(self, name, script="copy", *, content="x", **more):
        """Leave a job with one input and one output."""
        path = self.folder / f"{name}.in"
        path.write_text(content)
        maps = {"input_map": {"input": str(path)}, "output_map": {"output": str(self.folder / f"{name}.out")}}
        return leave(self.box, name, {"script": script, **maps, **more})

    def rounds(self, submitter=None):
        """Go on until all is finished, with another program that carries out the workspaces."""
        submitter = submitter or self.submitter
        until(lambda: not (submitter.round() + run_workspaces(self.workspaces)), every=0.02)

    def files(self):
        """What can be seen in the drop box."""
        return sorted(path.name for path in self.box.iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def home():
    """A configuration for all tests."""
    with pytest.MonkeyPatch.context() as monkeypatch, isolation(monkeypatch) as place:
        place.configure("hpcnb: {sites: {local: {settings: {containers: /sw/my sif}}}}")
        yield place.home


@pytest.fixture
def yard(home, tmp_path, monkeypatch):
    monkeypatch.setattr(boxes, "SETTLED", 0.02)
    monkeypatch.setattr(boxes, "UNFIT", 0.1)
    yard = Yard(tmp_path)
    yield yard
    yard.ours.leave()


def test_every_step_of_the_format(yard):
    """The file, the workspace, the script, `submitted` and `finished` are as the format has them, name by name."""
    yard.template("show", COPY + "echo <<level>> <<containers>> <<workspace>>\necho oops >&2; ls -l job.sh\n")
    path = yard.job("tmpa1b2c3", "show", args={"level": 6})
    job, number = yaml.safe_load(path.read_text()), path.stat().st_ino
    until(lambda: yard.submitter.round() and not path.exists(), every=0.02)
    assert yard.files() == ["tmpa1b2c3.job.submitted"]
    (workspace,) = yard.workspaces.iterdir()
    assert workspace.name.startswith(f"{socket.gethostname().partition('.')[0]}-{number}-")
    submitted = yaml.safe_load((yard.box / "tmpa1b2c3.job.submitted").read_text())
    hpc_section = {
        "workspace": str(workspace),
        "finished_file": f"{workspace}/finished.out",
        "input_map": {"input": f"{workspace}/input/tmpa1b2c3.in"},
        "output_map": {"output": f"{workspace}/output/tmpa1b2c3.out"},
    }
    assert submitted == {**job, "hpc": hpc_section}
    assert stat.S_IMODE((workspace / "job.sh").stat().st_mode) == 0o750
    assert (workspace / "input" / "tmpa1b2c3.in").read_text() == "x"
    yard.rounds()
    assert yard.files() == ["tmpa1b2c3.job.finished"]
    finished = yaml.safe_load((yard.box / "tmpa1b2c3.job.finished").read_text())
    found = finished.pop("job")
    assert finished == submitted
    assert found.keys() == {"status", "message", "rc", "stdout", "stderr", "start", "end"}
    assert (found["status"], found["rc"], found["stderr"]) == ("ok", 0, "oops\n")
    assert found["stdout"].startswith(f"done\n6 /sw/my sif {workspace}\n-rwxr-x---")
    assert (yard.folder / "tmpa1b2c3.out").read_text() == "x"
    assert list(yard.workspaces.iterdir()) == []


def test_a_workspace_is_kept_on_request(yard):
    """With `keep` a finished job's workspace stays, with all that is in it."""
    yard.ours.leave()
    yard.job("a")
    yard.rounds(yard.again(keep=True))
    (workspace,) = yard.workspaces.iterdir()
    assert (workspace / "finished.out").read_text().startswith("0\n")
    assert outcome(yard.box, "a")["status"] == "ok"


def test_several_jobs_are_staged_at_once(yard, monkeypatch):
    """A few jobs are staged, and later collected, at the same time, and no more than that; each is finished once."""
    together = threading.Barrier(AT_ONCE)
    now, most = set(), []

    def meeting(real):
        def work(self, workspace, *arguments):
            now.add(workspace)
            most.append(len(now))
            together.wait(30)
            now.discard(workspace)
            return real(self, workspace, *arguments)

        return work

    for name in ("stage", "result"):
        monkeypatch.setattr(Workspaces, name, meeting(getattr(Workspaces, name)))
    names = [f"job{number}" for number in range(2 * AT_ONCE)]
    for name in names:
        yard.job(name, content=name)
    until(lambda: all(yard.ours.settled(f"{name}.job") for name in names), every=0.02)
    yard.rounds()
    assert max(most) == AT_ONCE
    assert yard.files() == [f"{name}.job.finished" for name in names]
    assert [(yard.folder / f"{name}.out").read_text() for name in names] == names


# -- the faults of the format's first implementation --------------------------------------------------------------------


def test_a_stale_lock_file_blocks_for_ever(yard, monkeypatch):
    """A runner that was killed, here or on another machine, is followed by the next one."""
    code = f"""
import os, signal
from pathlib import Path
from hpcnb.dropbox.box import Box
box = Box.at(Path({str(yard.box)!r}))
assert box.own(box.watch())
os.kill(os.getpid(), signal.SIGKILL)
"""
    yard.ours.leave()
    subprocess.run([sys.executable, "-c", code], check=False)
    watch = Box.at(yard.box).watch()
    assert watch.owner()
    yard.job("a")
    yard.rounds(yard.again())  # on this machine the process is seen to have gone
    assert outcome(yard.box, "a")["status"] == "ok"
    yard.ours.lose()  # without a word, as one that was cut off
    monkeypatch.setattr(lease, "LAPSE", 0.3)
    monkeypatch.setattr(lease, "_dead", lambda owner: False)
    other = Box.at(yard.box)
    watch = other.watch()
    until(lambda: other.own(watch), within=30)
    other.leave()


def test_a_waiter_can_read_a_half_written_file(yard):
    """A waiter of ours sees no file of another program before that has written all of it, and ours are never half-written."""
    path = yard.box / "a.job.finished"
    (yard.box / "a.job.submitted").touch()
    path.write_text("job: {rc: 0}")  # what is there of it can be read
    read = lambda: waiting._read(yard.box / "a.job", path)  # noqa: E731
    assert read() is None
    (yard.box / "a.job.submitted").unlink()
    assert read() == {"job": {"rc": 0}}
    path.unlink()
    seen, over = [], threading.Event()

    def look():
        while not over.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.append(yaml.safe_load((yard.box / "b.job.finished").read_bytes()))

    looking = threading.Thread(target=look)
    looking.start()
    yard.template("long", "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' x\n")
    leave(yard.box, "b", {"script": "long"})
    try:
        yard.rounds()
        until(lambda: seen)
    finally:
        over.set()
        looking.join()
    assert all(len(one["job"]["stdout"]) == 300_000 for one in seen)


def test_an_input_that_cannot_be_read_leaks_a_new_workspace_every_minute(yard):
    """An input that cannot be read is reported, at once, and leaves no workspace."""
    fifo, folder = yard.folder / "fifo", yard.folder / "folder"
    os.mkfifo(fifo)
    folder.mkdir()
    paths = {"gone": "/no/such file", "fifo": str(fifo), "folder": str(folder)}
    for name, path in paths.items():
        leave(yard.box, name, {"script": "copy", "input_map": {"input": path}, "output_map": {"output": "/tmp/x"}})
    yard.job("good")
    yard.rounds()
    assert {name: outcome(yard.box, name)["message"] for name in paths} == {
        "gone": "the input /no/such file cannot be read: No such file or directory",
        "fifo": f"the input {fifo} cannot be read: it is no regular file",
        "folder": f"the input {folder} cannot be read: Is a directory",
    }
    assert outcome(yard.box, "gone") | {"message": ""} == {
        "status": "error", "message": "", "rc": None, "stdout": "", "stderr": "", "start": None, "end": None
    }  # fmt: skip
    assert outcome(yard.box, "good")["status"] == "ok"
    assert list(yard.workspaces.iterdir()) == []


def test_an_integer_argument_or_a_backslash_in_a_value_breaks_the_substitution(yard):
    """Numbers, backslashes, quotes, line ends, `;` and `$(…)` arrive as they were, in values and in files' names."""
    nasty = "a\\1 \\g<0> 'b' \"c\" ; $(touch hacked) `touch hacked`\n<<level>>"
    says = "#!/bin/sh\nprintf '<%s>' <<level>> <<nasty>> \"<<nasty>>\" <<input>>\n"
    yard.template("echo", says + "cp input/<<input>> output/<<output>>\n")
    name = 'it\'s $(touch hacked); "x" \n.in'
    (yard.folder / name).write_text("y")
    target = yard.folder / f"out {name}"
    maps = {"input_map": {"input": str(yard.folder / name)}, "output_map": {"output": str(target)}}
    leave(yard.box, "a'b \n;$(x)", {"script": "echo", "args": {"level": 6, "nasty": nasty}, **maps})
    yard.rounds()
    assert outcome(yard.box, "a'b \n;$(x)")["stdout"] == f"<6><{nasty}><{nasty}><{name}>"
    assert target.read_text() == "y"
    assert all("\n" not in line for line in yard.said)


def test_two_inputs_with_the_same_base_name_overwrite_each_other(yard):
    """Inputs with the same base name are both there, and outputs with the same base name go where each belongs."""
    for folder in ("one", "two"):
        (yard.folder / folder).mkdir()
        (yard.folder / folder / "t.txt").write_text(folder)
    yard.template("both", "#!/bin/sh\ncat input/<<a>> > output/<<c>>; cat input/<<b>> > output/<<d>>\n")
    inputs = {key: str(yard.folder / folder / "t.txt") for key, folder in (("a", "one"), ("b", "two"))}
    outputs = {key: str(yard.folder / folder / "u.txt") for key, folder in (("c", "two"), ("d", "one"))}
    leave(yard.box, "a", {"script": "both", "input_map": inputs, "output_map": outputs})
    yard.rounds()
    assert [(yard.folder / folder / "u.txt").read_text() for folder in ("two", "one")] == ["one", "two"]


# -- bad input ----------------------------------------------------------------------------------------------------------


def test_what_makes_no_sense(yard):
    """A job that makes no sense is finished with a precise error; nothing of it is left, and other jobs go on."""
    yard.template("key", "#!/bin/sh\necho <<lost>>\n")
    cases = {
        "yaml": (b"script: [", "the file is not YAML"),
        "list": (b"- script", "no mapping"),
        "bytes": (b"\xff\xfe", "not UTF-8"),
        "missing": (b"script: nothing", "there is no template 'nothing' in .*; there are: copy, key"),
        "key": (b"script: key", "<<lost>> in the template has no value; there are values for: .*containers.*workspace"),
        "deep": (b"[" * 50_000, "nested more than 100 deep"),
        "number": (
            b"script: copy\nargs: {level: 0x" + b"f" * 6000 + b"}",
            "is not YAML: a whole number of .* characters",
        ),
        "float": (b"script: copy\nmore: 1" + b":59" * 400 + b".5", "is not YAML: OverflowError"),
        "date": (b"script: copy\nmore: !!timestamp soon", "is not YAML: AttributeError"),
        "bool": (b"script: copy\nmore: !!bool perhaps", "is not YAML: KeyError"),
        "empty": (b"script: copy\nmore: !!int ''", "is not YAML: IndexError"),
        "time": (b"script: copy\nmore: 1" + b":59" * 4000, "is not YAML: a whole number of .* characters"),
    }
    for name, (data, _) in cases.items():
        (yard.box / f"{name}.job").write_bytes(data)
    yard.job("good")
    yard.rounds()
    assert yard.files() == sorted(f"{name}.job.finished" for name in [*cases, "good"])
    for name, (_, why) in cases.items():
        assert outcome(yard.box, name)["status"] == "error"
        assert re.search(why, outcome(yard.box, name)["message"])
    assert outcome(yard.box, "good")["status"] == "ok"
    assert list(yard.workspaces.iterdir()) == []


def test_what_is_still_being_written(yard, monkeypatch):
    """A job that another program writes in its place is not touched before that is done; a folder or a pipe is no job."""
    monkeypatch.setattr(boxes, "UNFIT", 60)
    monkeypatch.setattr(boxes, "SETTLED", 60)
    (yard.box / "folder.job").mkdir()
    os.mkfifo(yard.box / "pipe.job")
    path = yard.box / "a.job"
    for text in ("", "script: copy\ninput_", f"script: none\ninput_map: {{input: {yard.folder}/a.in}}\n"):
        path.write_text(text)
        for _ in range(3):
            yard.submitter.round()
        assert path.exists()
    monkeypatch.setattr(boxes, "SETTLED", 0.02)
    yard.job("a")
    until(lambda: yard.submitter.round() and not path.exists(), every=0.05)
    yard.rounds()
    assert outcome(yard.box, "a")["status"] == "ok"


def test_outputs_that_cannot_be_copied(yard, monkeypatch):
    """An output that is missing, or has no place, is an error that names it, and then no output is there; others' jobs go on."""
    places = {"nowhere": "/no/such/place/x", "device": "/dev/null", "system": "/proc/x", "folder": str(yard.folder)}
    for name, place in places.items():
        yard.job(name, output_map={"output": place, "copy": str(yard.folder / f"{name}.copy")})
    yard.job("missing", output_map={"output": str(yard.folder / "missing.out"), "never": str(yard.folder / "never")})
    yard.job("full")
    yard.job("good")

    def fetch(self, path, file):
        if path.endswith("full.out"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, path, file)

    real = Workspaces.fetch
    monkeypatch.setattr(Workspaces, "fetch", fetch)
    yard.template("copy", COPY + "cp input/<<input>> output/$(basename <<input>> .in).copy\n")
    yard.rounds()
    message = {name: outcome(yard.box, name)["message"] for name in [*places, "missing", "full", "good"]}
    assert message["nowhere"].endswith("to /no/such/place/x: No such file or directory")
    assert message["device"].endswith("to /dev/null: what is there is no regular file")
    assert message["folder"].endswith(f"to {yard.folder}: what is there is no regular file")
    assert "to /proc/x: " in message["system"]
    assert "output/never to " in message["missing"]
    assert "cannot be read: No such file or directory" in message["missing"]
    assert message["full"].endswith("full.out: No space left on device")
    assert message["good"] == "successful"
    assert [outcome(yard.box, name)["rc"] for name in message] == [0] * 7
    left = {path.name for path in yard.folder.iterdir() if not path.name.endswith(".in")}
    assert left == {"box", "templates", "workspaces", "good.out"}
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_job_that_fails(yard):
    """A job that fails is an error with its return code and all that it has printed; its outputs are not copied."""
    yard.template("fail", "#!/bin/sh\necho x > output/<<output>>; printf '\\377\\033[1m\\000'; echo why >&2; exit 3\n")
    yard.template("big", "#!/bin/sh\nhead -c 1500000 /dev/zero | tr '\\0' x; kill -9 $$\n")
    yard.job("a", "fail")
    yard.job("b", "big")
    yard.rounds()
    found = outcome(yard.box, "a")
    assert (found["status"], found["message"], found["rc"]) == ("error", "the job ended with return code 3", 3)
    assert (found["stdout"], found["stderr"]) == ("\ufffd\033[1m\0", "why\n")
    assert not (yard.folder / "a.out").exists()
    assert outcome(yard.box, "b")["rc"] == -9
    assert outcome(yard.box, "b")["stdout"].startswith("… 500,000 bytes before this are left out\nxxx")


def test_a_submitted_job_that_lies(yard):
    """A `submitted` file cannot have anything removed, or copied, that is not in a workspace of ours."""
    victim = yard.folder / "victim"
    victim.mkdir()
    (victim / "finished.out").write_text("0\n")
    (victim / "job.sh").touch()
    workspace = yard.workspaces / "host-1-2"
    workspace.mkdir(parents=True)
    (workspace / "finished.out").write_text("0\n")
    target = str(yard.folder / "stolen")
    hpc_section = {"output_map": {"o": f"{workspace}/../../secret"}, "workspace": str(workspace)}
    for name, section in {
        "far": {"workspace": str(victim), "output_map": {}},
        "up": {"workspace": f"{yard.workspaces}/../../victim", "output_map": {}},
        "list": [],
        "thief": hpc_section,
    }.items():
        text = yaml.safe_dump({"script": "x", "output_map": {"o": target}, "hpc": section})
        (yard.box / f"{name}.job.submitted").write_text(text)
    (yard.box / "half.job.submitted").write_text("script: [")
    for _ in range(3):
        yard.submitter.round()
    assert yard.files() == [f"{name}.job.submitted" for name in ("far", "half", "list")] + [
        "thief.job.finished",
        "up.job.submitted",
    ]
    assert "secret' is not in the workspace" in outcome(yard.box, "thief")["message"]
    assert victim.is_dir()
    assert not (yard.folder / "stolen").exists()


def test_who_may_write(yard, tmp_path):
    """A drop box or workspaces that everybody can write to are refused; another user's workspace is not run."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(hpc.QueueError, match="everybody can write to"):
        Box.at(tmp_path / "open")
    with pytest.raises(hpc.QueueError, match="others can write to"):
        _ = Workspaces("", str(tmp_path / "open")).path
    with pytest.raises(hpc.QueueError, match="no absolute path"):
        _ = Workspaces("", "here").path
    with pytest.raises(hpc.QueueError, match="cannot write .*File exists"):
        Box.at(tmp_path / "templates" / "copy.template")


def test_what_holds_up_no_other(yard, monkeypatch):
    """A job to which there is no answer, or whose file cannot be removed, is told of once, and holds up no other job."""
    long = yard.job("x" * 245)
    stuck = yard.job("stuck")
    unlink = Path.unlink

    def refused(path, **more):
        if path == stuck:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, **more)

    monkeypatch.setattr(Path, "unlink", refused)
    yard.job("good")
    until(
        lambda: yard.submitter.round() and run_workspaces(yard.workspaces) == 0 and "good.job.finished" in yard.files()
    )
    for _ in range(3):
        yard.submitter.round()
    assert yard.files() == ["good.job.finished", "stuck.job", long.name]
    assert sum("leaves no room for .submitted" in line for line in yard.said) == 1
    assert sum("Operation not permitted" in line for line in yard.said) == 1
    monkeypatch.undo()
    long.unlink()
    monkeypatch.setattr(boxes, "SETTLED", 0.02)
    yard.rounds()
    assert outcome(yard.box, "stuck")["status"] == "ok"


def test_a_workspace_that_has_gone(yard):
    """A job whose workspace was purged is finished with an error, so that nobody waits for ever."""
    path = yard.job("a")
    until(lambda: yard.submitter.round() and not path.exists(), every=0.02)
    (workspace,) = yard.workspaces.iterdir()
    shutil.rmtree(workspace)
    assert yard.submitter.round() == 0
    found = outcome(yard.box, "a")
    assert (found["status"], found["rc"]) == ("error", None)
    assert "its workspace has gone" in found["message"]


# -- other programs -------------------------------------------------------------------------------------------------------


def test_submitters_of_others(yard):
    """What another program has submitted into our workspaces is collected by us; what lies elsewhere is left to it."""
    ours = submit(yard.job("a"), yard.workspaces, COPY)
    theirs = submit(yard.job("b"), yard.folder / "theirs", COPY)
    run_workspaces(yard.folder / "theirs")
    yard.rounds()
    assert yard.files() == ["a.job.finished", "b.job.submitted"]
    assert outcome(yard.box, "a")["status"] == "ok"
    assert not ours.exists()
    assert theirs.exists()
    collect(yard.box / "b.job.submitted")
    assert outcome(yard.box, "b")["status"] == "ok"


def test_collectors_of_others(yard):
    """What we have submitted another program can collect, and its file is understood by our waiter."""
    path = yard.job("a")
    until(lambda: yard.submitter.round() and not path.exists(), every=0.02)
    run_workspaces(yard.workspaces)
    collect(yard.box / "a.job.submitted")
    assert waiting._read(path, yard.box / "a.job.finished")["job"]["status"] == "ok"
    assert (yard.folder / "a.out").read_text() == "x"
    assert yard.submitter.round() == 0


# -- submit_and_wait ------------------------------------------------------------------------------------------------------


class Serving:
    """A runner in a thread."""

    def __init__(self, yard, submitter):
        self._over = False
        self._thread = threading.Thread(target=self._serve, args=(yard, submitter))

    def _serve(self, yard, submitter):
        while not self._over:
            submitter.round()
            run_workspaces(yard.workspaces)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._over = True
        self._thread.join()


def test_submit_and_wait(yard, home, monkeypatch):
    """It writes the file, waits, and returns what the finished one says; also by a script's name, with relative paths."""
    monkeypatch.chdir(yard.folder)
    (yard.folder / "in.txt").write_text("y")
    maps = {"input_map": {"input": yard.folder / "in.txt"}, "output_map": {"output": yard.folder / "out.txt"}}
    with Serving(yard, yard.submitter):
        found = hpc.submit_and_wait(yard.box, {"script": "copy", **maps}, period=0.05)
        assert found["job"]["status"] == "ok"
        assert found["input_map"] == {"input": f"{yard.folder}/in.txt"}
        assert (yard.folder / "out.txt").read_text() == "y"
        assert hpc.submit_and_wait(str(yard.box), {"script": "none"}, 0.05)["job"]["status"] == "error"
    yard.box = home / "dropbox"
    other = yard.again()
    with Serving(yard, other):
        found = hpc.submit_and_wait("copy", inputs={"input": "in.txt"}, outputs={"output": "o"}, period=0.05)
    assert found["output_map"] == {"output": f"{yard.folder}/o"}
    assert (yard.folder / "o").read_text() == "y"


def test_an_interrupted_wait_leaves_the_job(yard, monkeypatch):
    """Ctrl-C ends the wait, says where the job's end will be found, and the job goes on."""

    def interrupted(_seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", interrupted)
        with pytest.raises(KeyboardInterrupt) as raised:
            hpc.submit_and_wait(yard.box, {"script": "nothing"})
    (name,) = yard.files()
    assert f"{yard.box}/{name}.finished" in raised.value.__notes__[0]
    yard.rounds()
    assert yard.files() == [f"{name}.finished"]


def test_what_cannot_be_submitted(yard, monkeypatch):
    """No directory, no room, or a job that YAML has not: a precise error, and nothing is left."""
    with pytest.raises(hpc.QueueError, match="there is no drop box /no/such"):
        hpc.submit_and_wait("/no/such", {"script": "x"})
    with pytest.raises(hpc.QueueError, match="cannot be written as YAML"):
        hpc.submit_and_wait(yard.box, {"script": "x", "args": {"a": object()}})
    with pytest.raises(hpc.QueueError, match="together"):
        hpc.submit_and_wait(yard.box, {"script": "x"}, inputs={"a": "b"})

    def full(_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(written.os, "fsync", full)
    with pytest.raises(hpc.QueueError, match="No space left on device"):
        hpc.submit_and_wait(yard.box, {"script": "x"})
    assert [path.name for path in yard.box.iterdir()] == [".hpcnb"]


# -- two runners ----------------------------------------------------------------------------------------------------------


def test_two_runners(yard, monkeypatch):
    """Of two runners one works; the other waits, says so, and takes over when that ends; one that lost the directory stops."""
    said = []
    other = Box.at(yard.box)
    second = Submitter(
        other, yard.folder / "templates", Workspaces("", str(yard.workspaces)), keep=False, say=said.append
    )
    running = threading.Thread(
        target=Runner(other, second, None, said.append).run, args=(0.02,), kwargs={"until_idle": True}
    )
    running.start()
    until(lambda: said)
    assert said == [f"another runner sees to the drop box: process {os.getpid()} on {socket.gethostname()}; waiting"]
    yard.job("a")
    until(lambda: yard.submitter.round() and yard.files() == ["a.job.submitted"])
    yard.ours.leave()
    run_workspaces(yard.workspaces)
    running.join()
    assert said[1:] == ["a.job: finished: 0"]
    with pytest.raises(lease.Fenced):
        yard.submitter.round()
    assert yard.files() == ["a.job.finished"]


def test_a_runner_that_was_stopped(yard, monkeypatch):
    """One that was stopped in the midst of a step, for longer than others wait, changes nothing when it goes on."""
    monkeypatch.setattr(lease, "LAPSE", 0.3)
    monkeypatch.setattr(lease, "_dead", lambda owner: False)
    first, put = yard.ours, Box._put
    others = []

    def stopped(self, kind, name, content):
        put(self, kind, name, content)
        if self is first:
            self._lease.drop()  # it is silent from here
            other = Box.at(yard.box)
            watch = other.watch()
            until(lambda: other.own(watch), every=0.02)
            there = Workspaces("", str(yard.workspaces))
            yard.rounds(Submitter(other, yard.folder / "templates", there, keep=False, say=yard.said.append))
            others.append(other)

    monkeypatch.setattr(Box, "_put", stopped)
    yard.job("a")
    with pytest.raises(lease.Fenced):
        until(lambda: yard.submitter.round() and False)
    assert yard.files() == ["a.job.finished"]
    assert sum("finished: 0" in line for line in yard.said) == 1
    assert list(yard.workspaces.iterdir()) == []
    others[0].leave()


@pytest.mark.parametrize(
    ("words", "error", "why"),
    [
        (["run", "--walltime", "soon"], hpc.ConfigError, "walltime"),
        (["drain", "--queue", "../x"], hpc.QueueError, "cannot be a queue's name"),
        (["run", "--site", "nowhere"], hpc.ConfigError, "there is no site 'nowhere'"),
        (["submit", "/dev/null/x"], hpc.QueueError, "cannot write /dev/null/x: Not a directory"),
    ],
)
def test_what_is_refused_at_once(home, words, error, why):
    """What is wrong with a runner's options is an error before it sees to anything."""
    with pytest.raises(error, match=why):
        commands.main(["dropbox", *words], standalone_mode=False)
