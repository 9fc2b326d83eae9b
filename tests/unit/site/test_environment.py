"""The Python at a site: how it is entered, what it answers, and the verdict on it."""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.errors import EnvironmentMismatch, SiteError
from hpcnb.model import Versions
from hpcnb.site.environment import BEGIN, END, HERE, PROBE, Environment, Probe, judge, probe, versions
from hpcnb.site.local import LocalShell
from hpcnb.site.shell import Completed


@pytest.fixture
async def shell():
    """The shell of this machine."""
    shell = LocalShell()
    yield shell
    await shell.close()


class Answering:
    """A shell that gives one answer."""

    name = "the login node"

    def __init__(self, out="", err="", returncode=0):
        self.answer = Completed(returncode=returncode, stdout=out.encode(), stderr=err.encode())

    async def run(self, argv, **options):
        """Answer."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


GOOD = Probe(
    python=platform.python_version(),
    executable="/opt/python",
    packages={name: importlib.metadata.version(name) for name in ("dask", "distributed", "ipykernel")},
    home="/home/ada/.hpcnb",
    user_home="/home/ada",
    host="login1",
    clock=0.0,
)


def said(found=GOOD):
    """A probe's answer as it comes over the wire."""
    return f"{BEGIN}{json.dumps(found.to_json())}{END}"


# -- how it is entered ----------------------------------------------------------------------------------------------


def enter(environment, *arguments, **environ):
    """What the entered interpreter prints."""
    command = environment.argv(environment.enter(*arguments))
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environ}).stdout


def test_it_is_entered_as_it_is():
    """Without a setup the interpreter is simply run."""
    assert enter(HERE, "-c", "import sys; print(sys.executable)").strip() == sys.executable


def test_setup_comes_first():
    """Setup lines are run before, by a login shell, and may change what Python sees."""
    environment = Environment(python=sys.executable, setup=["export COLOUR=red", "export SHAPE='a b'"])
    shown = enter(environment, "-c", "import os; print(os.environ['COLOUR'], os.environ['SHAPE'])")
    assert shown == "red a b\n"
    assert environment.argv("x")[:2] == ["bash", "-l"]
    assert environment.shebang == "#!/bin/bash -l"


def test_setup_may_make_the_interpreter_available(tmp_path):
    """A module system puts the interpreter on PATH; its name is enough."""
    (tmp_path / "mypython").symlink_to(sys.executable)
    environment = Environment(python="mypython", setup=[f"PATH={tmp_path}:$PATH"])
    assert enter(environment, "-c", "print(1)") == "1\n"


def test_the_home_directory_is_the_sites(tmp_path):
    """A path that begins with a tilde is looked up there, not here."""
    (tmp_path / "my envs").mkdir()
    (tmp_path / "my envs" / "python").symlink_to(sys.executable)
    environment = Environment(python="~/my envs/python")
    assert enter(environment, "-c", "print(1)", HOME=str(tmp_path)) == "1\n"


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=30))
def test_an_interpreter_is_one_word(name):
    """Whatever an interpreter is called, the shell takes it for one word, and runs nothing in it."""
    shown = subprocess.run(
        ["sh", "-c", f"printf %s {Environment(python='/' + name).interpreter}"], capture_output=True, check=True
    )
    assert shown.stdout.decode() == "/" + name


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30), max_size=3))
def test_arguments_are_words(arguments):
    """Whatever is passed on, arrives as it is."""
    line = Environment(python="printf").enter("%s\\0", *arguments)
    shown = subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout
    assert shown.split(b"\0") == [*(a.encode() for a in arguments), b""] if arguments else shown == b"\0"


# -- what it answers ------------------------------------------------------------------------------------------------


async def test_this_python_answers(shell, monkeypatch, tmp_path):
    """A probe of this machine finds this very Python, its packages, its places and its clock."""
    monkeypatch.setenv("HPCNB_HOME", str(tmp_path / "home"))
    found = await probe(shell, HERE, site="local")
    assert (found.python, found.executable) == (platform.python_version(), sys.executable)
    assert found.packages["distributed"] == importlib.metadata.version("distributed")
    assert (found.home, found.exposed) == (str(tmp_path / "home"), False)
    assert abs(found.clock - time.time()) < 60
    assert judge(found, versions(), site="local") == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", "{HOME}/.hpcnb"), ("~/x", "{HOME}/x"), ("$SCRATCH/y z", "/scratch/y z"), ("/abs", "/abs"), ("~", "{HOME}")],
)
async def test_where_our_files_go(shell, monkeypatch, tmp_path, given, expected):
    """The configured home is understood at the site: its tilde, its variables, its blanks."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("HPCNB_HOME", raising=False)
    found = await probe(shell, HERE, site="local", home=given)
    assert found.home == expected.format(HOME=tmp_path)
    assert found.user_home == str(tmp_path)


@pytest.mark.parametrize(("mode", "exposed"), [(0o700, False), (0o755, False), (0o775, True), (0o777, True)])
async def test_a_home_that_others_can_write_is_seen(shell, tmp_path, mode, exposed):
    """Where others could put code, the probe sees it."""
    tmp_path.chmod(mode)
    found = await probe(shell, HERE, site="local", home=str(tmp_path))
    assert found.exposed is exposed


async def test_a_chatty_login_does_no_harm(shell, tmp_path, monkeypatch):
    """What a login shell prints before, between and after, the answer stands out of."""
    chatty = Environment(python=sys.executable, setup=["echo 'Welcome {\"x\": 1}'", "set -v", "trap 'echo Bye' EXIT"])
    found = await probe(shell, chatty, site="local")
    assert found.executable == sys.executable


NOISE = st.text(st.characters(exclude_categories=["Cs"]), max_size=200).filter(
    lambda s: BEGIN not in s and END not in s
)


@given(NOISE, NOISE)
def test_any_noise_is_passed_over(before, after):
    """Whatever is printed around it, the answer is found."""
    found = asyncio.run(probe(Answering(before + said() + after), HERE, site="octopus"))
    assert found == GOOD


def test_a_question_that_is_echoed_is_no_answer():
    """A shell that shows what it runs shows the question; the answer comes after it."""
    assert asyncio.run(probe(Answering(PROBE + said()), HERE, site="octopus")) == GOOD


BROKEN = [
    "",
    "hello",
    BEGIN,
    END,
    END + BEGIN,
    f"{BEGIN}{{{END}",
    f"{BEGIN}[]{END}",
    f"{BEGIN}{{}}{END}",
    f"{BEGIN}5{END}",
]


@pytest.mark.parametrize("out", BROKEN)
async def test_no_answer_is_an_error_with_evidence(out):
    """What is no answer is shown, with what to try."""
    with pytest.raises(EnvironmentMismatch, match="gave no answer") as caught:
        await probe(Answering(out, err="a traceback", returncode=1), Environment(python="python9"), site="octopus")
    assert caught.value.evidence == "a traceback"
    assert "python: of site 'octopus'" in caught.value.remedy


@pytest.mark.parametrize("returncode", [126, 127])
async def test_a_missing_interpreter_is_named(returncode):
    """A Python that is not there is said not to be, with the key to change."""
    answer = Answering(err="sh: 1: exec: python9: not found", returncode=returncode)
    with pytest.raises(EnvironmentMismatch, match="there is no Python at 'python9'") as caught:
        await probe(answer, Environment(python="python9"), site="octopus")
    assert "setup:" in caught.value.remedy


async def test_a_missing_interpreter_is_named_by_a_real_shell(shell):
    """The real shell's answer is understood."""
    with pytest.raises(EnvironmentMismatch, match="there is no Python at '/nowhere/python'"):
        await probe(shell, Environment(python="/nowhere/python"), site="local")


async def test_a_slow_site_is_an_error_of_ours():
    """A login node that does not answer in time is told as what it is."""
    silent = Answering()
    silent.answer = TimeoutError("the command took longer than 60 s")
    with pytest.raises(EnvironmentMismatch, match="gave no answer") as caught:
        await probe(silent, HERE, site="octopus")
    assert "longer than 60 s" in caught.value.evidence


def test_the_probe_runs_under_any_python_3():
    """An old Python is to be named, not to fail on our syntax."""
    ast.parse(PROBE, feature_version=(3, 4))
    assert "f'" not in PROBE
    assert 'f"' not in PROBE


# -- the verdict ----------------------------------------------------------------------------------------------------


def test_what_fits_passes():
    """The same versions there as here are fine."""
    assert judge(replace(GOOD, clock=time.time()), versions(), site="octopus") == []


def test_another_patch_release_passes():
    """Python's third number does not matter."""
    minor = platform.python_version().rsplit(".", 1)[0]
    assert judge(replace(GOOD, python=f"{minor}.99", clock=time.time()), versions(), site="octopus") == []


@pytest.mark.parametrize("python", ["3.8.10", "2.7.18", "4.0.0", "3.110.0"])
def test_another_minor_version_is_refused(python):
    """Functions cannot travel between minor versions, and the message names both."""
    with pytest.raises(EnvironmentMismatch, match=f"Python is {python} there and {platform.python_version()} here"):
        judge(replace(GOOD, python=python), versions(), site="octopus")


@pytest.mark.parametrize("missing", [["dask"], ["distributed"], ["ipykernel"], ["distributed", "ipykernel"]])
def test_a_missing_package_is_named_with_the_command(missing):
    """What is not installed is named, with the command that installs the versions that fit."""
    packages = {name: "" if name in missing else version for name, version in GOOD.packages.items()}
    with pytest.raises(EnvironmentMismatch, match=" and ".join(missing)) as caught:
        judge(replace(GOOD, packages=packages), versions(), site="octopus")
    version = importlib.metadata.version("distributed")
    assert caught.value.remedy.startswith(f"At the site: {GOOD.executable} -m pip install ")
    assert f"distributed=={version}" in caught.value.remedy


def test_packages_nobody_told_of_are_missing():
    """An answer without packages is one without any."""
    with pytest.raises(EnvironmentMismatch, match="dask and distributed and ipykernel not installed"):
        judge(replace(GOOD, packages={}), versions(), site="octopus")


@pytest.mark.parametrize("name", ["dask", "distributed"])
def test_another_release_is_refused(name):
    """Dask speaks its own protocol: another release is refused before the first task, not after."""
    with pytest.raises(EnvironmentMismatch, match=f"{name} is 2020.1.0 there"):
        judge(replace(GOOD, packages=GOOD.packages | {name: "2020.1.0"}), versions(), site="octopus")


def test_a_home_open_to_others_is_refused():
    """Where others can write, no code of ours is put; the message has the command."""
    with pytest.raises(SiteError, match="others can write") as caught:
        judge(replace(GOOD, exposed=True), versions(), site="octopus")
    assert f"chmod go-w {GOOD.home}" in caught.value.remedy


@pytest.mark.parametrize(("skew", "words"), [(3600, "3600 s ahead of"), (-120, "120 s behind"), (30, ""), (-30, "")])
def test_clocks_that_differ_are_told(skew, words):
    """A clock that is off by more than a minute is a warning, not an end."""
    warnings = judge(replace(GOOD, clock=time.time() + skew), versions(), site="octopus")
    assert [words in warning for warning in warnings] == ([True] if words else [])


def test_the_clients_python_counts():
    """It is the notebook's Python that the site's must suit, not the agent's."""
    client = Versions(python="3.99.1", packages=GOOD.packages | {"distributed": "2099.1.0"})
    with pytest.raises(EnvironmentMismatch, match=r"and 3\.99\.1 here"):
        judge(GOOD, client, site="octopus")
    with pytest.raises(EnvironmentMismatch, match=r"and 2099\.1\.0 here"):
        judge(replace(GOOD, python="3.99.2"), client, site="octopus")
