"""The command line: help that can be typed as printed, errors without a traceback, exit status 0 only for what happened."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import termios
from dataclasses import replace

import click
import pytest

import hpcnb
from hpcnb import cli
from hpcnb.agent import places, record
from hpcnb.cli.clusters import unlike
from hpcnb.cli.face import TerminalFace
from hpcnb.config import SiteConfig, cluster_spec
from hpcnb.errors import ClusterError, NotReady
from hpcnb.handle import Handle
from hpcnb.model import ClusterSpec, ClusterStatus, JobState, JobStatus, Resources, State
from tests.site.account import words
from tests.unit.pilot.tiny import wait_for

HPCNB = [sys.executable, "-m", "hpcnb.cli"]


def walk(command=cli.commands, path=("hpcnb",)):
    """Every command, with the words that call it."""
    context = click.Context(command, info_name=path[-1])
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))


COMMANDS = [*walk()]
each_command = pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])


def examples(command):
    """The lines of a command's help that can be typed."""
    block = command.help.partition("Example")[2].splitlines()[1:]
    return [line.strip().split("   ")[0] for line in block if line.strip().startswith("hpcnb ")]


@pytest.fixture
def run(isolated, monkeypatch, capsys):
    """Run the command line in this process: exit status, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hpcnb", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return caught.value.code, shown.out, shown.err

    return run


# -- help -----------------------------------------------------------------------------------------------------------


@each_command
def test_help_has_an_example(path, command):
    """Every command explains itself in a sentence, and shows what to type."""
    assert command.help.splitlines()[0].endswith((".", ":"))
    assert examples(command), f"`{' '.join(path)} --help` shows no example"


@each_command
def test_examples_can_be_typed(path, command):
    """Every example is understood by the very command that shows it, or one below it."""
    for line in examples(command):
        words = shlex.split(line.split(";")[0])
        assert tuple(words[: len(path)]) == path, line
        found, rest = cli.commands, words[1:]
        while isinstance(found, click.Group) and rest:
            found, name = found.get_command(click.Context(found), rest[0]), rest[0]
            assert found is not None, line
            rest = rest[1:]
            if not isinstance(found, click.Group):
                top = click.Context(cli.commands, help_option_names=["-h", "--help"])
                found.make_context(name, rest, parent=top, obj=object())


@each_command
def test_options_explain_themselves(path, command):
    """An option whose name does not say it all has a sentence of help."""
    silent = {p.name for p in command.params if isinstance(p, click.Option) and not p.help}
    assert silent == set()


@pytest.mark.parametrize(
    "words", [path[1:] for path, command in COMMANDS if isinstance(command, click.Group)], ids=" ".join
)
def test_lists_of_commands_are_whole(run, words):
    """What a command does is not cut off in the middle of a sentence."""
    listed = run(*words, "--help")[1].partition("Commands:")[2]
    assert len(listed.splitlines()) > 2
    assert "..." not in listed


def test_the_tabulator(isolated):
    """A shell is told commands, options and sites, and nothing is started for it."""
    isolated.configure("hpcnb: {sites: {octopus: {host: o}}}")

    def offered(*words):
        asked = os.environ | {
            "_HPCNB_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["hpcnb", *words]),
            "COMP_CWORD": str(len(words)),
        }
        code = "import sys; sys.argv = ['hpcnb']; from hpcnb.cli import main; main()"
        said = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=False)
        assert said.stderr == ""
        return [line.partition(",")[2] for line in said.stdout.splitlines()]

    assert offered("st") == ["status"]
    assert offered("up", "--wall") == ["--walltime"]
    assert offered("up", "o") == ["octopus"]
    assert offered("doctor", "o") == ["octopus"]
    assert isolated.processes() == []


@each_command
def test_help_is_shown(path, command, run):
    """`--help` and `-h` show the help, and that is a success."""
    for word in ("--help", "-h"):
        status, out, err = run(*path[1:], word)
        assert (status, err) == (0, "")
        assert out.startswith(f"Usage: {' '.join(path)} [OPTIONS]")
        assert command.help.splitlines()[0] in " ".join(out.split())


def test_the_version_is_shown(run):
    """The version is that of the package."""
    assert run("--version")[:2] == (0, f"hpcnb, version {hpcnb.__version__}\n")


# -- what is wrong --------------------------------------------------------------------------------------------------

WRONG = [
    ([], 2, "Usage:"),
    (["dance"], 2, "No such command 'dance'"),
    (["up", "--nodes", "0"], 2, "--nodes"),
    (["up", "--nodes", "two"], 2, "two"),
    (["up", "--dance"], 2, "--dance"),
    (["up", "a", "b"], 2, "unexpected extra argument"),
    (["up", "--walltime", "soon"], 1, "walltime: 'soon' is not a duration"),
    (["up", "--memory-per-node", "16G"], 1, "'16G' is not an amount of memory"),
    (["up", "--timeout", "later"], 1, "'later' is not a duration"),
    (["up", "--option", "partition=gpu"], 1, "'partition' is not an option"),
    (["up", "--name", "../x"], 1, "name"),
    (["up", "--name", "a\nb"], 1, "name"),
    (["up", "--partition", "a b; reboot"], 1, "partition"),
    (["up", "--cores-per-node", "-1"], 1, "cores_per_node"),
    (["up", "nowhere"], 1, "there is no site 'nowhere'"),
    (["scale", "x"], 2, "x"),
    (["scale", "0"], 2, "0"),
    (["logs", "-n", "0"], 2, "0"),
    (["agent", "dance"], 2, "dance"),
    (["agent"], 2, "Usage:"),
]


@pytest.mark.parametrize(("words", "status", "said"), WRONG, ids=[" ".join(words) for words, _, _ in WRONG])
def test_what_is_wrong_is_said(run, isolated, words, status, said):
    """A mistake is an error with the words to mend it, and nothing is started for it."""
    found, out, err = run(*words)
    assert (found, out) == (status, "")
    assert said in err
    assert isolated.processes() == []


def test_a_wrong_configuration_is_named(run, isolated):
    """An error in the configuration names the file and the key."""
    isolated.configure("hpcnb: {sites: {octopus: {hots: x}}}")
    status, _, err = run("up")
    assert status == 1
    assert err.startswith("ConfigError: ")
    assert "hots" in err
    assert str(isolated.folder / "config" / "hpcnb.yaml") in err


IN_PYTHON = "import hpcnb; hpcnb.Cluster"
IN_A_NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "hpcnb")
shell.run_cell("%hpc")
"""


@pytest.mark.parametrize(
    "command",
    [[*HPCNB, "status"], [sys.executable, "-c", IN_PYTHON], [sys.executable, "-c", IN_A_NOTEBOOK]],
    ids=["terminal", "python", "notebook"],
)
def test_a_file_that_is_not_yaml_is_named(isolated, command):
    """Dask, which reads it as it is imported, is no reason for a traceback: the file and the line are said."""
    isolated.configure("hpcnb:\n  sites:\n\toctopus: {}\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip().splitlines()
    found = next(i for i, line in enumerate(said) if "ConfigError: " in line)
    assert "a file of the configuration is not YAML" in said[found]
    assert str(isolated.folder / "config" / "hpcnb.yaml") in "\n".join(said[found:])
    assert "line 3" in "\n".join(said[found:])
    assert "ValueError" not in "".join(said)
    if command[:3] == HPCNB:
        assert (done.returncode, found) == (1, 0)


def test_a_place_that_is_not_safe_is_named(run, isolated):
    """A runtime directory that is open to others is an error with its remedy."""
    (isolated.folder / "run" / "hpcnb").mkdir(mode=0o755)
    status, _, err = run("status")
    assert status == 1
    assert "chmod 700" in err


@pytest.mark.parametrize("words", [["down"], ["down", "fit"], ["scale", "2"], ["scale", "2", "fit"], ["logs"]])
def test_without_a_cluster(run, words):
    """What needs a cluster says that there is none, and how to get one."""
    status, out, err = run(*words)
    assert (status, out) == (1, "")
    assert "NotReady" in err
    assert "`hpcnb up` starts one" in err


# -- what is right --------------------------------------------------------------------------------------------------


def test_listings_are_json(run):
    """Every listing has a form for programs."""
    assert run("status", "--json")[:2] == (0, "[]\n")
    status, out, _ = run("sites", "--json")
    assert (status, json.loads(out)) == (0, [{"name": "local", "host": "", "batch": "process", "default": True}])
    status, out, _ = run("agent", "status", "--json")
    assert (status, json.loads(out)["version"]) == (0, hpcnb.__version__)


def test_listings_are_text(run):
    """Every listing has a form for people."""
    assert run("status")[:2] == (0, "no cluster; `hpcnb up` starts one\n")
    assert run("sites")[:2] == (0, "* local: process on this machine\n")
    assert str(places.agent_log()) in run("agent", "status")[1]


def test_a_site_is_examined(run):
    """A line for each finding and one for all of them; with --json a list; and nothing that failed is a success."""
    status, out, err = run("doctor")
    assert (status, err) == (0, "")
    *lines, last = out.splitlines()
    assert [line[0] for line in lines] == ["✓"] * 7
    assert last == "local is ready: `hpcnb up local` starts a cluster"
    status, out, _ = run("doctor", "local", "--json")
    found = json.loads(out)
    assert (status, {one["verdict"] for one in found}) == (0, {"ok"})
    assert [*found[0]] == ["name", "verdict", "text", "evidence", "remedy", "seconds"]


def test_an_examination_that_finds_a_fault_is_no_success(run, isolated):
    """What failed has its evidence and what to do; the others go on, and the exit status is 1."""
    isolated.configure("hpcnb: {sites: {octopus: {batch: process, python: /nonexistent/python}}}")
    status, out, _ = run("doctor", "octopus")
    assert status == 1
    assert "✗ Python        there is no Python at '/nonexistent/python'\n    | " in out
    assert "    → Set python: of site 'octopus' in ~/.config/dask/hpcnb.yaml" in out
    assert "- home          not looked at: the Python there has not answered\n" in out
    assert "✓ batch system" in out
    assert out.splitlines()[-1].startswith("octopus cannot be used yet: Python failed; ")
    status, out, _ = run("doctor", "octopus", "--json")
    assert (status, [one["verdict"] for one in json.loads(out)].count("failed")) == (1, 1)


def test_a_site_that_is_not_configured_is_a_finding(run, isolated):
    """So is a configuration that is wrong; neither starts anything."""
    status, out, _ = run("doctor", "octopusx")
    assert status == 1
    assert out.startswith("✗ entry         there is no site 'octopusx'\n    → ")
    isolated.configure("hpcnb: {sites: {octopus: {hots: x}}}")
    status, out, _ = run("doctor", "--json")
    (found,) = json.loads(out)
    assert (status, found["name"], "'hots'" in found["text"]) == (1, "entry", True)
    assert run("doctor")[1].endswith(
        "\nthe default site cannot be used yet: entry failed; mend it, and `hpcnb doctor` looks again\n"
    )
    assert isolated.processes() == []


def test_an_examination_is_interrupted(isolated):
    """Ctrl-C while a site is silent ends it at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = isolated.folder / "ssh_config"
        config.write_text(f"Host far\n  HostName 127.0.0.1\n  Port {silent.getsockname()[1]}\n")
        isolated.configure(f"hpcnb: {{sites: {{far: {{host: far, ssh-config: {config}}}}}}}")
        with subprocess.Popen(
            [*HPCNB, "doctor", "far"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as looking:
            connection, _ = silent.accept()
            assert looking.stdout.readline().startswith("✓ entry")  # shown while the login goes on
            looking.send_signal(signal.SIGINT)
            out, err = looking.communicate(timeout=20)
            connection.settimeout(20)
            while connection.recv(1000):
                pass  # the agent lets go of it, too: after its greeting there is only the end
            connection.close()
    assert looking.returncode == 130
    assert "Traceback" not in err
    assert out == ""


def test_the_agent_is_stopped(run, isolated):
    """The agent is stopped when it runs, and that it does not is no error; but its status is."""
    run("status")
    (agent,) = isolated.processes()
    assert run("agent", "stop")[0] == 0
    agent.wait(20)
    assert run("agent", "stop")[:2] == (0, "no agent runs\n")
    status, out, err = run("agent", "status")
    assert (status, out) == (1, "")
    assert "no agent runs" in err


def test_a_cluster_whose_site_has_left_the_configuration(run, isolated):
    """It is listed with the reason; who asks for it hears that, and what to do; the others are not kept from anybody."""
    spec = ClusterSpec(site="octopus", name="fit", resources=Resources())
    kept = record.new("1" * 16, spec)
    record.save(replace(kept, status=replace(kept.status, state=State.READY)))
    assert "there is no site 'octopus'" in run("status")[1]
    for asked in ["down", "fit"], ["down", "--all"], ["dashboard"]:
        status, _, err = run(*asked)
        assert status == 1
        assert "NotReady: cluster 'fit': it cannot be followed: there is no site 'octopus'\n→ Put the entry" in err
    assert hpcnb.clusters() == []
    with pytest.raises(NotReady, match="there is no site 'octopus'"):
        hpcnb.attach("fit")


def test_down_all_without_any(run):
    """Ending all clusters where there is none is done at once."""
    assert run("down", "--all")[:2] == (0, "")


def test_down_all_goes_on_after_a_failure(run, monkeypatch):
    """A cluster that cannot be ended now does not keep the others; each failure is told, and the exit status says so."""
    ended = []

    class Stuck(TerminalFace):
        def close(self, handle):
            ended.append(handle.id)
            if len(ended) < 3:
                raise ClusterError(f"{handle.id} has not ended yet")

    spec = ClusterSpec(site="local", name="fit", resources=Resources())
    three = [Handle(ClusterStatus(id=str(i), spec=spec, state=State.READY)) for i in range(3)]
    monkeypatch.setattr("hpcnb.cli.face.TerminalFace", Stuck)
    monkeypatch.setattr("hpcnb.cli.clusters._live", lambda: three)
    status, _, err = run("down", "--all")
    assert (status, ended) == (1, ["0", "1", "2"])
    assert "0 has not ended yet" in err
    assert "ClusterError: 1 has not ended yet" in err


def test_down_that_is_interrupted(run, monkeypatch):
    """Ctrl-C ends the waiting, not the end of the cluster, and that is said."""

    class Interrupted(TerminalFace):
        def close(self, handle):
            raise KeyboardInterrupt

    spec = ClusterSpec(site="local", name="fit", resources=Resources())
    monkeypatch.setattr("hpcnb.cli.face.TerminalFace", Interrupted)
    monkeypatch.setattr(
        "hpcnb.cli.clusters._live", lambda: [Handle(ClusterStatus(id="0", spec=spec, state=State.READY))]
    )
    status, _, err = run("down")
    assert status == 130
    assert "fit goes on ending; `hpcnb status` shows when it has\n" in err


SPEC = ClusterSpec(
    site="s",
    name="s",
    memory_per_worker=2**34,
    resources=Resources(nodes=2, walltime=3600, partition="debug", options={"--exclusive": "", "--constraint": "a"}),
)


@pytest.mark.parametrize(
    ("asked", "has"),
    [
        ({}, []),
        ({"walltime": "60m", "nodes": 2, "partition": "debug", "memory_per_worker": "16GiB"}, []),
        ({"walltime": "2h", "nodes": 4}, ["--nodes 2", "--walltime 1h"]),
        ({"nodes": 3}, []),  # as it was scaled
        (
            {"account": "m1", "partition": "gpu", "gpus_per_node": 1},
            ["no --gpus-per-node", "no --account", "--partition debug"],
        ),
        ({"memory_per_worker": "8GiB"}, ["--memory-per-worker 16GiB"]),
        ({"options": {"--constraint": "a", "--exclusive": ""}}, []),
        ({"options": {"--constraint": "b", "--comment": "x"}}, ["--constraint a", "no --comment"]),
    ],
)
def test_what_a_living_cluster_has_instead(asked, has):
    """Only what is asked for is compared, by what it means."""
    asked = {"options": {}, "nodes": None} | asked
    site = SiteConfig(name="s", batch="slurm", partition="other", walltime="3h", nodes=7)
    jobs = tuple(JobStatus(job_id=str(i), state=JobState.RUNNING) for i in range(2))
    found = unlike(ClusterStatus(id="0", spec=SPEC, state=State.READY, jobs=jobs), cluster_spec(site, **asked), asked)
    assert sorted(found) == sorted(has)


def test_a_reader_that_has_enough_is_no_error(isolated):
    """A pipe that is closed early, as by `head`, is no reason for a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = subprocess.run([*HPCNB, "sites", "--json"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode != 0


def test_interrupted_while_connecting(isolated):
    """Ctrl-C while a site is silent ends the command at once, and no cluster is left waiting."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = isolated.folder / "ssh_config"
        config.write_text(f"Host far\n  HostName 127.0.0.1\n  Port {silent.getsockname()[1]}\n")
        isolated.configure(f"hpcnb: {{sites: {{far: {{host: far, ssh-config: {config}}}}}}}")
        with subprocess.Popen([*HPCNB, "up", "far"], stderr=subprocess.PIPE, text=True) as up:
            connection, _ = silent.accept()
            up.send_signal(signal.SIGINT)
            _, err = up.communicate(timeout=20)
            connection.close()
    assert up.returncode == 130
    assert "Traceback" not in err
    assert "no job of it is left" in err
    shown = subprocess.run([*HPCNB, "status", "--all", "--json"], capture_output=True, text=True, check=True).stdout
    assert [one["state"] for one in json.loads(shown)] == ["ended"]


ASK = """
import hpcnb as hpc
hpc.clusters
from hpcnb import handle
from hpcnb.site.shell import Prompt
handle.run(handle._ask(Prompt(kind="notice", title="octopus", text="another login is under way")))
print("said", handle.run(handle._ask(Prompt(kind="secret", title="ada@octopus", text="Password: "))))
"""


class Terminal:
    """A terminal with a program in it."""

    def __init__(self, code):
        self.master, terminal = os.openpty()
        words = ["setsid", "--ctty", "--wait", sys.executable, "-c", code]
        self.process = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        self.shown = ""

    def until(self, text):
        """Read until something is shown."""
        wait_for(lambda: text in self.shown or self._read())

    def _read(self):
        self.shown += os.read(self.master, 1000).decode()

    def type(self, text):
        """Type something."""
        os.write(self.master, text.encode())

    @property
    def echoes(self):
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def close(self):
        """Switch it off."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(isolated):
    """A terminal in which a program's password is asked for; what it uses of hpcnb has told where its user is."""
    made = Terminal(ASK)
    made.until("Password:")
    wait_for(lambda: not made.echoes)
    yield made
    made.close()


def test_a_password_is_not_shown(terminal):
    """A secret is asked for without an echo."""
    terminal.type("sesame\n")
    terminal.until("said sesame")
    assert terminal.shown.count("sesame") == 1
    assert terminal.process.wait(20) == 0
    assert "ada@octopus" in terminal.shown
    assert "octopus: another login is under way" in terminal.shown


def test_an_interrupted_password(terminal):
    """Ctrl-C instead of a password ends the program at once, and leaves a terminal that shows what is typed."""
    terminal.type("\x03")
    assert terminal.process.wait(20) != 0
    assert terminal.echoes


def test_the_end_of_input_instead_of_a_password(terminal):
    """Ctrl-D instead of a password is an answer, too."""
    terminal.type("\x04")
    assert terminal.process.wait(20) != 0
    terminal.until("Abort")
    assert terminal.echoes


LINES = """
from hpcnb.cli.face import _Line
from hpcnb.model import ClusterSpec, ClusterStatus, Resources, State
line = _Line()
print("$ hpcnb up")
for detail in ("as long as it takes " * 5, "soon", "as long as it takes, and longer"):
    line.draw(ClusterStatus(id="0", spec=ClusterSpec(site="s", name="s", resources=Resources()), state=State.QUEUED, detail=detail))
line.done()
print("over")
"""


def screen(written):
    """What a terminal shows of it, a line each."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", written):
        if up := re.fullmatch(r"\x1b\[(\d*)A", part):
            row -= int(up[1])
        elif part == "\x1b[J":
            lines[row:] = [""]
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part != "\r":
            lines[row] += part
    return lines


def test_what_is_waited_for_is_shown_whole(isolated, monkeypatch):
    """In a narrow terminal the status takes several lines, and the next one takes their place."""
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal(LINES)
    terminal.until("over")
    terminal.close()
    shown = screen(terminal.shown)
    assert shown[:3] == ["$ hpcnb up", "s: queued: as long as it takes, and", "longer"]
    assert shown[3:] == ["over", ""]
    assert "as long as it takes as long as it takes" in " ".join(terminal.shown.replace("\r\n", " ").split())


@pytest.mark.slow
def test_a_whole_life(run, isolated):
    """A cluster is started, shown, used again, looked into and ended, each with the exit status 0."""
    status, out, err = run("up", "--workers-per-node", "1", "--name", "fit")
    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert lines[0].startswith("fit on local: requested")
    assert lines[-1].startswith("fit on local: ready, 1 worker, ")
    status, out, _ = run("status", "--json")
    (shown,) = json.loads(out)
    assert (shown["state"], shown["counts"]["workers"], shown["spec"]["name"]) == ("ready", 1, "fit")
    assert run("status")[1].startswith("● fit on local: ready")
    assert run("up", "--name", "fit")[0] == 0
    assert run("up", "--name", "fit", "--workers-per-node", "1")[0] == 0
    status, _, err = run("up", "--name", "fit", "--workers-per-node", "2", "--walltime", "2h", "--nodes", "1")
    assert status == 1
    assert "a cluster named 'fit' is ready already, with --workers-per-node 1, --walltime 30d (site local)" in err
    assert len(json.loads(run("status", "--json")[1])) == 1
    status, out, _ = run("logs", "scheduler", "-n", "3")
    assert status == 0
    assert out.startswith("── logs/scheduler.log ──\n")
    assert len(out.splitlines()) <= 4
    status, _, err = run("logs", "dance")
    assert (status, "no log 'dance'" in err) == (1, True)
    assert run("down", "nobody")[0] == 1
    status, _, err = run("down", "fit")
    assert status == 0
    assert err.splitlines()[-1] == "fit on local: ended: closed"
    assert run("down", "fit")[0] == 1
    assert run("status")[1] == "no cluster; `hpcnb up` starts one\n"
    assert run("status", "--all")[1] == "○ fit on local: ended: closed\n"
    assert run("logs")[0] == 0
    assert run("agent", "stop")[0] == 0
    wait_for(lambda: not isolated.processes())


@pytest.mark.slow
def test_the_death_of_the_last_cluster_is_told(run, isolated):
    """Who asks after a cluster that has just died hears how, where there is no other; who has ended it does not, nor who comes days later."""
    assert run("up", "--workers-per-node", "1")[0] == 0
    (pilot,) = [one for one in isolated.processes() if "hpcnb.pilot" in words(one)]
    pilot.kill()
    wait_for(lambda: run("status", "--json")[1] == "[]\n")
    first, second, death, *_, advice = run("status")[1].splitlines()
    assert first == "no cluster; `hpcnb up` starts one"
    assert second.startswith("local ended ")
    assert death.startswith("✗ failed: the job was killed by signal 9")
    assert advice.endswith("`hpcnb logs` shows more.")
    assert run("up", "--workers-per-node", "1")[0] == 0
    assert "signal 9" not in run("status")[1]
    assert run("down", "--all")[0] == 0
    assert run("status")[1] == "no cluster; `hpcnb up` starts one\n"
    assert run("agent", "stop")[0] == 0
    wait_for(lambda: not isolated.processes())
