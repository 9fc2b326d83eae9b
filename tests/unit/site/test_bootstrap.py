"""Preparing a run: code shipped once, a private run directory, a script that holds whatever the paths are."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.errors import SiteError
from hpcnb.model import ClusterSpec, Resources
from hpcnb.pilot.run import Run
from hpcnb.site import bootstrap
from hpcnb.site.authority import Authority
from hpcnb.site.environment import HERE, Environment
from hpcnb.site.local import LocalShell
from hpcnb.site.shell import Completed

GOLDEN = Path(__file__).parent / "golden"
SECRET = "5ec7e7" * 10
SPEC = ClusterSpec(site="octopus", name="fit", resources=Resources())
NASTY = [
    "it's",
    'a "b" c',
    "two  blanks ",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "& touch pwned &",
    "a\nb",
    "a\n#!/bin/sh\ntouch pwned",
    "$HOME ${X} $1",
    "back\\slash",
    "*?[x]",
    "-rf",
    "~root",
    "naïve\N{SNOWMAN}",
    "\x1b[31mred",
    "!!",
]


def a_run(path, **fields):
    """A run's record."""
    return Run(id="0123456789abcdef", token="0" * 32, path=str(path), spec=SPEC, directory="/home/ada", **fields)


def files_of(run, environment=HERE):
    """The files of a run."""
    authority = Authority.create(run.id)
    return bootstrap.run_files(run, environment, zip_path="/x.zip", authority=authority, secret=SECRET)


@pytest.fixture
async def shell():
    """The shell of this machine."""
    shell = LocalShell()
    yield shell
    await shell.close()


class Counting(LocalShell):
    """The shell of this machine, with a count of what it writes, and errors on demand."""

    def __init__(self, error=None):
        super().__init__()
        self.written = []
        self.error = error

    async def write(self, path, data, *, mode=0o600):
        """Write, or fail."""
        if self.error:
            raise self.error
        self.written.append(path)
        await super().write(path, data, mode=mode)


# -- the job's script -----------------------------------------------------------------------------------------------


def test_the_script_is_as_expected():
    """The script is the same, to the letter, for the same run."""
    environment = Environment(python="~/envs/hpc/bin/python")
    run = a_run("/home/ada/.hpcnb/runs/0123456789abcdef")
    made = bootstrap.job_script(run, environment, "/home/ada/.hpcnb/code/c0ffee/hpcnb.zip")
    assert made == (GOLDEN / "job.sh").read_text()


def test_the_script_with_a_setup_is_as_expected():
    """A setup is run by a login shell, after our own variables, before Python; odd paths are quoted."""
    environment = Environment(python="python", setup=["module load python", "conda activate 'my env'"])
    made = bootstrap.job_script(a_run("/scratch/a da/it's"), environment, "/x y/hpcnb.zip")
    assert made == (GOLDEN / "job-setup.sh").read_text()


@pytest.mark.parametrize("nasty", NASTY)
def test_a_nasty_path_is_a_path(tmp_path, nasty):
    """Whatever a path holds, the script uses that directory, and runs nothing that is in its name."""
    place = tmp_path / nasty / "run"
    place.mkdir(parents=True)
    show = "import json, os, sys; print(json.dumps([sys.argv, os.environ['PYTHONPATH'], os.environ['DASK_CONFIG']]))"
    (tmp_path / "hpcnb" / "pilot").mkdir(parents=True)
    (tmp_path / "hpcnb" / "__init__.py").touch()
    (tmp_path / "hpcnb" / "pilot" / "__init__.py").touch()
    (tmp_path / "hpcnb" / "pilot" / "__main__.py").write_text(show)
    zip_path = f"{tmp_path}/{nasty}/hpcnb.zip"
    script = tmp_path / "job.sh"
    script.write_text(bootstrap.job_script(a_run(place), HERE, zip_path))
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(["sh", script], capture_output=True, cwd=tmp_path, env=environ, text=True, check=True)
    argv, pythonpath, dask_config = json.loads(done.stdout)
    assert argv[1:] == ["--run-dir", str(place)]
    assert pythonpath == f"{zip_path}:{tmp_path}"
    assert dask_config == f"{place}/dask"
    assert (place / "claim").is_dir()
    assert not list(tmp_path.rglob("pwned"))


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40))
def test_any_path_is_one_word(name):
    """No character of a path ends the word that it is in."""
    lines = bootstrap.job_script(a_run(f"/{name}"), HERE, "/x.zip")
    words = shlex.split(lines, comments=False)
    assert f"/{name}/claim" in words
    assert f"DASK_CONFIG=/{name}/dask" in words
    assert words[-2:] == ["--run-dir", f"/{name}"]


def test_of_two_jobs_one_works(tmp_path):
    """A second job with the same run directory, which a confused submission made, ends at once and well."""
    script = tmp_path / "job.sh"
    script.write_text(bootstrap.job_script(a_run(tmp_path), Environment(python="echo"), "/x.zip"))
    first, second = (subprocess.run(["sh", script], capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stdout == f"-m hpcnb.pilot --run-dir {tmp_path}\n"
    assert second.stdout == ""


def test_without_its_directory_a_job_ends(tmp_path):
    """A job whose run was given up starts nothing."""
    script = tmp_path / "job.sh"
    script.write_text(bootstrap.job_script(a_run(tmp_path / "gone"), Environment(python="echo"), "/x.zip"))
    assert subprocess.run(["sh", script], capture_output=True, text=True, check=True).stdout == ""


def test_what_the_job_makes_is_private(tmp_path):
    """The script's umask leaves nothing to others."""
    script = tmp_path / "job.sh"
    script.write_text(
        bootstrap.job_script(a_run(tmp_path), Environment(python="touch"), "/x.zip").split(" -m ")[0]
        + f" {tmp_path}/made"
    )
    before = os.umask(0)
    try:
        subprocess.run(["sh", script], check=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "claim").stat().st_mode) == 0o700


# -- its files ------------------------------------------------------------------------------------------------------


async def test_the_run_directory_is_private(shell, tmp_path):
    """Directories are 0700 and files 0600, whatever the umask, and hold what they should."""
    run = a_run(tmp_path / "home" / "runs" / "x")
    files = files_of(run)
    before = os.umask(0)
    try:
        await bootstrap.write_run(shell, run, files, site="local")
    finally:
        os.umask(before)
    for path in [Path(run.path), *Path(run.path).rglob("*"), tmp_path / "home", tmp_path / "home" / "runs"]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert {str(p.relative_to(run.path)) for p in Path(run.path).rglob("*") if p.is_file()} == {*files}
    assert (Path(run.path) / "logs").is_dir()
    assert Run.load(run.path) == run
    assert Run.load(run.path).secret == bytes.fromhex(SECRET)


@pytest.mark.parametrize("nasty", NASTY)
async def test_a_run_directory_of_any_name(shell, tmp_path, nasty):
    """Whatever its path holds, the run directory is made there and nowhere else."""
    run = a_run(tmp_path / nasty / "run")
    await bootstrap.write_run(shell, run, files_of(run), site="local")
    assert (tmp_path / nasty / "run" / "tls" / "link.secret").read_text() == SECRET
    await bootstrap.forget_secrets(shell, run.path, f"{tmp_path}/{nasty}")
    assert not (tmp_path / nasty / "run" / "tls").exists()
    assert [path.name for path in tmp_path.iterdir()] == [nasty.split("/")[0]]


def test_modes_are_in_the_archive():
    """From the first byte on a file has its final mode; no moment is left in which others could read it."""
    archive = tarfile.open(fileobj=io.BytesIO(bootstrap._tar(files_of(a_run("/x")))))  # noqa: SIM115
    with archive:
        modes = {entry.name: (entry.isdir(), entry.mode) for entry in archive}
    assert {mode for is_dir, mode in modes.values() if is_dir} == {0o700}
    assert {mode for is_dir, mode in modes.values() if not is_dir} == {0o600}
    assert list(modes).index("tls") < list(modes).index("tls/ca.pem")


def test_secrets_are_where_they_belong():
    """The link's secret and the keys are in files of their own; script, record and configuration hold none."""
    files = files_of(a_run("/x"))
    assert files["tls/link.secret"] == SECRET
    for name, text in files.items():
        if not name.startswith("tls/"):
            assert SECRET not in text, name
            assert "PRIVATE KEY" not in text, name
    assert not any("BEGIN" in files[name] and "PRIVATE" in files[name] for name in files if not name.endswith(".key"))


def test_the_authoritys_key_stays_at_home():
    """The key that issues certificates is in no file of a run."""
    run = a_run("/x")
    authority = Authority.create(run.id)
    files = bootstrap.run_files(run, HERE, zip_path="/x.zip", authority=authority, secret=SECRET)
    middle = authority.key.splitlines()[1]
    assert not any(middle in text for text in files.values())
    assert files["tls/ca.pem"] == authority.certificate


def test_dask_is_told_to_be_careful():
    """The scheduler and the workers demand TLS, with the run's own files, and serve no page."""
    told = bootstrap.dask_configuration("/runs/x")["distributed"]
    assert told["comm"]["require-encryption"] is True
    assert told["comm"]["tls"]["ca-file"] == "/runs/x/tls/ca.pem"
    assert told["comm"]["tls"]["worker"] == {"cert": "/runs/x/tls/worker.pem", "key": "/runs/x/tls/worker.key"}
    assert told["scheduler"]["http"]["routes"] == told["worker"]["http"]["routes"] == []


# -- what can go wrong ----------------------------------------------------------------------------------------------

TAR = "tar: hpcnb: Wrote only 512 of 10240 bytes\ntar: run.json: Cannot write: {}\n"


class Saying(LocalShell):
    """A shell whose every command ends badly, with some words."""

    def __init__(self, words):
        super().__init__()
        self.words = words

    async def run(self, argv, **options):
        """Fail."""
        return Completed(returncode=2, stdout=b"", stderr=self.words.encode())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("No space left on device", "the disk is full"),
        ("Disk quota exceeded", "the disk quota is exceeded"),
        ("Read-only file system", "it is read-only"),
        ("Permission denied", "Permission denied"),
    ],
)
async def test_no_room_is_named(words, why):
    """What tar says of a full disk, a quota or a read-only place is told in plain words, with what it said."""
    run = a_run("/home/ada/.hpcnb/runs/x")
    with pytest.raises(SiteError, match=why) as caught:
        await bootstrap.write_run(Saying(TAR.format(words)), run, files_of(run), site="octopus")
    assert run.path in caught.value.what
    assert words in caught.value.evidence
    assert "home: of site 'octopus'" in caught.value.remedy


@contextlib.contextmanager
def tiny_disk(path):
    """A file system of 64 KiB."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "hpcnb", path], check=True, capture_output=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def full(tmp_path):
    """A place with hardly any room."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(tiny_disk(tmp_path / "tiny"))
        except (FileNotFoundError, subprocess.CalledProcessError):
            pytest.skip("needs to be root, and allowed to mount")


async def test_a_disk_that_is_really_full(shell, full, monkeypatch):
    """On a real full disk, neither code nor a run is left half-written, and both say that it is full."""
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    with pytest.raises(SiteError, match=f"cannot write {full}/code/[0-9a-f]+: the disk is full"):
        await bootstrap.ship_code(shell, str(full), site="local")
    assert not [path for path in full.rglob("*") if path.is_file()]
    (full / "filler").write_bytes(b"x" * (44 << 10))
    run = a_run(full / "runs" / "x")
    with pytest.raises(SiteError, match="the disk is full"):
        await bootstrap.write_run(shell, run, files_of(run), site="local")


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is exceeded"),
        (errno.EROFS, "it is read-only"),
    ],
)
async def test_no_room_for_the_code_is_named(tmp_path, number, why):
    """The code that finds no room is an error with the place and the reason."""
    with pytest.raises(SiteError, match=why) as caught:
        await bootstrap.ship_code(Counting(OSError(number, os.strerror(number))), str(tmp_path), site="octopus")
    assert f"{tmp_path}/code/" in caught.value.what


async def test_a_command_that_hangs_is_a_site_error(monkeypatch):
    """A site that does not answer in time is told as such, with the place."""

    class Slow(LocalShell):
        async def run(self, argv, **options):
            raise TimeoutError("the command took longer than 60 s")

    run = a_run("/home/ada/.hpcnb/runs/x")
    with pytest.raises(SiteError, match="cannot write /home/ada/.hpcnb/runs/x"):
        await bootstrap.write_run(Slow(), run, files_of(run), site="octopus")


# -- the code -------------------------------------------------------------------------------------------------------


async def test_code_is_shipped_once(tmp_path):
    """The second time the code is there already, and is not written again; it is private."""
    shell = Counting()
    first = await bootstrap.ship_code(shell, str(tmp_path / "home"), site="local")
    second = await bootstrap.ship_code(shell, str(tmp_path / "home"), site="local")
    assert first == second
    assert shell.written == [first]
    assert stat.S_IMODE(Path(first).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


async def test_half_a_file_is_written_again(tmp_path):
    """What is there with another length is not believed."""
    shell = Counting()
    path = await bootstrap.ship_code(shell, str(tmp_path), site="local")
    whole = Path(path).read_bytes()
    for wrong in (whole[:-1], whole + b"x", b""):
        Path(path).write_bytes(wrong)
        await bootstrap.ship_code(shell, str(tmp_path), site="local")
        assert Path(path).read_bytes() == whole
    shutil.rmtree(tmp_path / "code")
    assert await bootstrap.ship_code(shell, str(tmp_path), site="local") == path
    assert Path(path).read_bytes() == whole


def test_the_same_code_is_the_same_bytes():
    """The name is the hash of the content, and a later agent packs the same code under the same name."""
    show = "from hpcnb.site.bootstrap import code; print(code()[0])"
    shown = {
        subprocess.run(
            [sys.executable, "-c", show],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in "12"
    }
    assert len(shown) == 1


def shipped(path, folder):
    """Where a program that has nothing but the zip finds our code."""
    code = "import hpcnb, hpcnb.pilot.lead, hpcnb.pilot.node, hpcnb.pilot.session.host; print(hpcnb.__file__)"
    environ = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder, env=environ
    ).stdout


async def test_the_shipped_code_is_enough(shell, tmp_path):
    """With the zip alone, in no directory of ours, the pilot can be run, and is this version."""
    path = await bootstrap.ship_code(shell, str(tmp_path), site="local")
    assert shipped(path, tmp_path).startswith(path)


def test_the_zip_is_all_of_it():
    """Every module is in the zip, and nothing that could hold a secret."""
    _, data = bootstrap.code.__wrapped__()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
    root = Path(bootstrap.__file__).parents[2]
    assert {name for name in names if name.endswith(".py")} == {
        str(path.relative_to(root)) for path in (root / "hpcnb").rglob("*.py")
    }
    assert {Path(name).suffix for name in names} == {".py", ".pyc"}


# -- what is left ---------------------------------------------------------------------------------------------------


async def test_old_runs_are_forgotten(shell, tmp_path):
    """Of runs that ended two weeks ago nothing is left; those that live, or ended lately, stay."""
    home = tmp_path / "home"
    for name in ("old", "lately", "alive"):
        (home / "runs" / name / "logs").mkdir(parents=True)
    (home / "runs" / "alive" / "tls").mkdir()
    long_ago = 1_000_000_000
    for name in ("old", "alive"):
        os.utime(home / "runs" / name, (long_ago, long_ago))
    run = home / "runs" / "lately"
    (run / "tls").mkdir()
    await bootstrap.forget_secrets(shell, str(run), str(home))
    assert {path.name for path in (home / "runs").iterdir()} == {"lately", "alive"}
    assert not (run / "tls").exists()
    assert (run / "logs").exists()


async def test_secrets_that_could_not_be_forgotten_are_later(shell, tmp_path):
    """A site that was out of reach when a run ended is cleared with the next run that ends there; running ones are not."""
    for name in ("over", "alive", "this"):
        (tmp_path / "runs" / name / "tls").mkdir(parents=True)
    (tmp_path / "runs" / "over" / "ended.json").touch()
    await bootstrap.forget_secrets(shell, str(tmp_path / "runs" / "this"), str(tmp_path))
    assert [run.name for run in (tmp_path / "runs").iterdir() if (run / "tls").exists()] == ["alive"]


async def test_forgetting_what_is_not_there_is_no_error(shell, tmp_path):
    """A home that was purged has nothing to forget."""
    await bootstrap.forget_secrets(shell, str(tmp_path / "no" / "run"), str(tmp_path / "no"))
    await bootstrap.remove_run(shell, str(tmp_path / "no" / "run"))
