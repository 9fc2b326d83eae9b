"""`%hpc --help`: what a notebook can do, with examples as they are typed there."""

from __future__ import annotations

import re

import pytest
from IPython.core.interactiveshell import InteractiveShell

from hpcnb.errors import ConfigError
from hpcnb.notebook.line import run_line


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


def test_an_unknown_command_is_told_those_there_are(shell):
    """Those of the notebook as well."""
    with pytest.raises(ConfigError, match=r"commands: up, .*, adapt, attach, explore, push, pull\."):
        run_line(shell, "nonsense")
