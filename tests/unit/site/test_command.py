"""Commands as lists of words."""

from __future__ import annotations

import errno

import pytest

from hpcnb.site import command


@pytest.mark.parametrize("argv", ["ls", b"ls", ["ls", 1], [None]])
def test_a_command_is_a_list_of_strings(argv):
    """A string, or a list of something else, is the caller's mistake."""
    with pytest.raises(TypeError, match="list of strings"):
        command.words(argv)


@pytest.mark.parametrize("argv", [[], [""], ["a", "b\0c"]])
def test_a_command_that_cannot_be(argv):
    """There must be a program, and no word may hold a NUL."""
    with pytest.raises(ValueError, match="program|NUL"):
        command.words(argv)


def test_a_label_is_one_short_line():
    """Errors show a command on one line, quoted as one would type it, cut where it grows long."""
    assert command.label(["echo", "a b", "c\nd"]) == "echo 'a b' 'c\\nd'"
    assert len(command.label(["x" * 1000])) < 210


def test_errors_name_the_command_and_the_place():
    """Both errors of a command say which it was, where, and what the limit is."""
    assert str(command.slow(["ls"], "octopus", 1.5)) == "the command took longer than 1.5 s on octopus: ls"
    assert "64 MiB of output on octopus: ls" in str(command.flood(["ls"], "octopus"))
    assert command.flood(["ls"], "octopus").errno == errno.EFBIG
