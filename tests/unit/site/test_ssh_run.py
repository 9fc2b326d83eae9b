"""A command for a login shell: the same words arrive whatever is in them and whatever that shell is."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpcnb.site.ssh_run import STARTER, Mark

SHELLS = [path for name in ("sh", "bash", "ash", "zsh", "tcsh", "fish", "mksh") if (path := shutil.which(name))]
NASTY = [
    "'",
    '"',
    "$HOME",
    "`id`",
    "$(id)",
    "!!",
    "\\",
    "\\\\n",
    "a\nb",
    "\n",
    "\n\n",
    "",
    " ",
    "*",
    "~",
    "-n",
    "#",
    "%s",
    ";",
    "|",
    "$n",
]

word = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.sampled_from(NASTY)
raw = st.binary(max_size=20).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
each_shell = pytest.mark.parametrize("shell", SHELLS)


def arrive(words, ran) -> None:
    mark, done = ran
    pid, out = mark.part(done.stdout)
    assert out.split(b"\0")[:-1] == [os.fsencode(word) for word in [*words, "end"]]
    assert pid > 0
    assert mark.part(done.stderr)[1] == b""


def run(shell, words, stdin=b"", *, before="", starter=STARTER):
    """Do what sshd does: hand the starter to a login shell, and the script and the input to its stdin."""
    mark = Mark()
    command = [shell, "-c", before + starter]
    return mark, subprocess.run(command, input=mark.script(words) + stdin, capture_output=True, check=False)


@each_shell
@settings(max_examples=40)
@given(words=st.lists(word | raw, max_size=6))
@example(words=NASTY)
@example(words=[os.fsdecode(bytes(range(1, 256)))])
def test_words_arrive_unchanged(shell, words):
    """Neither the login shell nor sh changes or runs anything that is in a word."""
    arrive(words, run(shell, ["printf", "%s\\0", *words, "end"]))


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("sh", [shell for shell in SHELLS if not shell.endswith(("tcsh", "fish", "zsh"))])
@settings(max_examples=40)
@given(words=st.lists(word | raw, max_size=6))
@example(words=NASTY)
@example(words=[os.fsdecode(bytes(range(1, 256)))])
def test_words_arrive_through_any_sh(sh, locale, words):
    """Whatever stands behind /bin/sh at a site, and whatever its locale takes for a character."""
    starter = STARTER.replace("/bin/sh", sh)
    arrive(
        words,
        run("sh", ["printf", "%s\\0", *words, "end"], before=f"LC_ALL={locale}; export LC_ALL; ", starter=starter),
    )


@each_shell
def test_the_program_s_name_is_a_word_too(shell, tmp_path):
    """A program may be called anything."""
    program = tmp_path / "a 'b\n$c"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o700)
    mark, done = run(shell, [str(program)])
    assert mark.part(done.stdout)[1] == b"ran\n"


@each_shell
def test_the_script_takes_nothing_of_the_input(shell):
    """All that follows the script is the command's to read."""
    data = bytes(range(256)) * 1000
    mark, done = run(shell, ["cat"], data)
    assert mark.part(done.stdout)[1] == data


def test_chatter_is_parted_from_output():
    """What is printed before the command begins is not its output, not even the trace of a shell that echoes all."""
    mark, done = run("bash", ["sh", "-c", "echo out; echo err >&2"], before="set -xv; echo Hello; printf no-newline; ")
    assert mark.part(done.stdout)[1] == b"out\n"
    assert mark.part(done.stderr)[1] == b"err\n"


def test_without_a_mark_all_is_output():
    """When the command never began, what was printed instead is all there is to show."""
    assert Mark().part(b"This account is closed.\n") == (0, b"This account is closed.\n")


def test_a_torn_mark_is_no_mark():
    """A process id that has not arrived whole is not acted upon."""
    mark, done = run("sh", ["true"])
    line = done.stdout
    assert all(mark.part(line[:end])[0] == 0 for end in range(len(line)))
    assert mark.part(line)[0] > 1
