"""`%hpc --help`: what a notebook can do, with examples as they are typed there."""

from __future__ import annotations

import re

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from hpcnb import report
from hpcnb.cli import face
from hpcnb.cli.names import typed
from hpcnb.errors import ConfigError, NotReady
from hpcnb.notebook.line import complete, run_line
from hpcnb.site.finding import Finding, Verdict


@pytest.fixture
def shell():
    """IPython."""
    InteractiveShell.clear_instance()
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_the_help_is_a_notebooks(shell, capsys):
    """It names the commands that only a notebook has, and its examples begin with %hpc, those of each command too."""
    run_line(shell, "--help")
    said = capsys.readouterr().out
    listed = re.findall(r"^  (\w+) {2,}\S", said.partition("Commands:")[2], re.MULTILINE)
    assert {"up", "down", "status", "adapt", "attach", "push", "pull"} <= set(listed)
    for command in listed:
        run_line(shell, f"{command} --help")
        said = capsys.readouterr().out
        assert said.startswith(f"Usage: %hpc {command}")
        assert not re.search(r"^ +hpcnb ", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("%hpc u", ["up"]),
        ("%hpc a", ["adapt", "agent", "attach"]),
        ("%hpc up loc", ["local"]),
        ("%hpc doctor loc", ["local"]),
        ("%hpc up --wall", ["--walltime"]),
        ("%hpc up local --no", ["--no-wait", "--nodes"]),
        ("%%hpc --d", ["--detach"]),
        ("%%hpc --e", ["--each"]),
        ("%%hpc -o a --c", ["--cluster"]),
    ],
)
def test_the_tabulator(shell, isolated, typed, offered):
    """Commands, options and sites are offered as they are typed, and nothing is started for it."""
    shell.run_line_magic("load_ext", "hpcnb")
    with provisionalcompleter():
        found = [one.text for one in shell.Completer.completions(typed, len(typed))]
    assert sorted(found) == offered
    assert isolated.processes() == []


@pytest.mark.parametrize("typed", ["%hpc up 'l", "%hpc", "%hpc nonsense x"])
def test_the_tabulator_where_nothing_can_be_offered(shell, typed):
    """It is silent."""
    assert complete(typed) == []


def test_the_magics_explain_themselves(shell, capsys):
    """`%%hpc?` and `%%hpc --help` say what there is, every option of a cell with it."""
    shell.run_line_magic("load_ext", "hpcnb")
    shell.run_cell_magic("hpc", "--help", "1")
    said = capsys.readouterr().out.strip()
    shell.run_line_magic("pinfo", "%%hpc")
    assert said.splitlines()[-1] in capsys.readouterr().out
    with pytest.raises(UsageError) as caught:
        shell.run_cell_magic("hpc", "--nonsense", "1")
    for option in re.findall(r"\[(.*?)\]", str(caught.value).partition("usage:")[2]):
        assert f" {option} " in said


def test_a_site_is_examined_in_a_terminal(shell, isolated, capsys):
    """IPython without a front end prints a line for each finding, once."""
    run_line(shell, "doctor")
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines] == ["✓"] * 7
    assert last == "local is ready: `%hpc up local` starts a cluster"


def test_an_interrupt_while_a_finding_is_shown_ends_the_examination(shell, isolated, monkeypatch):
    """Whoever holds the traceback holds what was being shown; nothing goes on for that."""
    ended = []

    def findings(site):
        try:
            yield Finding(name="entry", verdict=Verdict.OK, text="well")
            pytest.fail("nobody has asked for more")
        finally:
            ended.append(site)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "findings", findings)
    monkeypatch.setattr(face, "finding_text", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_line(shell, "doctor local")
    assert (ended, caught.tb is not None) == (["local"], True)


def test_variables_in_a_line_are_expanded_as_in_any_magic(shell):
    """Those of the notebook, and of a function that calls the magic; but for `--each`, whose braces are Python's."""
    shell.run_line_magic("load_ext", "hpcnb")
    shell.user_ns["mine"] = "theirs"

    def local():
        mine = "ours"  # noqa: F841 - the magic finds it
        shell.run_line_magic("hpc", "{mine}")

    with pytest.raises(ConfigError, match="%hpc ours: "):
        local()
    with pytest.raises(ConfigError, match="%hpc theirs: "):
        shell.ex("get_ipython().run_line_magic('hpc', '$mine')")
    with pytest.raises(UsageError, match="unrecognized arguments: theirs"):
        shell.ex("get_ipython().run_cell_magic('hpc', '{mine}', '1')")
    with pytest.raises(UsageError, match="not '{mine}'"):
        shell.ex("""get_ipython().run_cell_magic('hpc', '--each "{mine}"', '1')""")


def test_an_unknown_command_is_told_those_there_are(shell):
    """Those of the notebook as well."""
    with pytest.raises(ConfigError, match=r"commands: up, .*, adapt, attach, explore, push, pull\."):
        run_line(shell, "nonsense")


def test_what_can_be_typed_is_named_as_it_is_typed_here(shell, isolated, capsys):
    """A notebook is told of `%hpc up`, a terminal of `hpcnb up`."""
    run_line(shell, "status")
    assert capsys.readouterr().out == "no cluster; `%hpc up` starts one\n"
    with pytest.raises(NotReady, match="`%hpc up` starts one"):
        run_line(shell, "down")
    assert typed("`%hpc` and `%hpc login x`; `%hpc attach`") == "`hpcnb status` and `hpcnb login x`; `%hpc attach`"
