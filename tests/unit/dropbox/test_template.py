"""Templates: what a value becomes where it stands, as a real shell sees it."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcnb.dropbox.template import Unfit, rendered

NASTY = "a b'c\"d; $(echo x) `echo y` $HOME \\1 \\g<0> \n * ~ # & | <<level>> !"
TEXTS = st.text(st.sampled_from("ab '\"\\$`();&|#*~<>{}!\n\t-=é"), max_size=20)
PLACES = """#!/bin/bash
# it's a comment with an apostrophe, for <<plain>>
say() { printf '%s\\0' "$@"; }
say <<value>> "in <<value>> double" 'in <<value>> single' pre<<value>>post "it's <<value>>" \\"<<value>>
say "$(printf '%s|' <<value>> "<<value>>")" $#<<value>> ${#HOME}<<value>>
"""


def said(script):
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


@settings(max_examples=150)
@given(TEXTS)
def test_a_value_is_one_word(value):
    """Whatever a value holds, it is one word where it stands alone, and a part of one within quotes; a real shell says so."""
    first = said(rendered(PLACES, {"value": value, "plain": "x.mp3"}))[:6]
    assert first == [value, f"in {value} double", f"in {value} single", f"pre{value}post", f"it's {value}", f'"{value}']


@settings(max_examples=50)
@given(TEXTS)
def test_within_a_command_substitution(value):
    """Quotes begin anew within `$(…)`, and a `#` that begins no word begins no comment."""
    nested, count, length = said(rendered(PLACES, {"value": value, "plain": "x.mp3"}))[6:]
    # The shell itself drops line ends at the end of what is substituted, and here there are none.
    assert nested == f"{value}|{value}|"
    assert count == f"0{value}"
    assert length.endswith(value)


@pytest.mark.parametrize(
    ("template", "where"),
    [
        ("x=`echo <<value>>`", "within backticks"),
        ("cat <<EOF\n<<value>>\nEOF\n", "within a here-document"),
        ("cat <<-'E F'\n\t<<value>>\n\tE F\n", "within a here-document"),
        ("echo ${x:-<<value>>}", "within ${…}"),
        ("echo $((1 + <<value>>))", "within $((…))"),
        ("echo $'<<value>>'", "within $'…'"),
        ("echo $<<value>>", "behind $"),
        ("echo \\<<value>>", "behind \\"),
        ("# <<value>>", "within a comment"),
        ("echo 'open\n<<value>>", "quotes are never closed"),
        ('x="$(case a in a) echo <<value>>;; esac)"', "`case` in parentheses"),
        ("#!/usr/bin/env python3\nprint(<<value>>)", "none of the shell's"),
    ],
)
def test_where_nothing_can_be_quoted(template, where):
    """Where no quoting would be safe a value that needs some is refused, with the place; one that needs none is filled in."""
    with pytest.raises(Unfit, match=re.escape(where)):
        rendered(template, {"value": NASTY})
    assert rendered(template, {"value": "plain.mp3"}) == template.replace("<<value>>", "plain.mp3")


def test_here_documents_end():
    """Behind a here-document the shell goes on; a here-string is none, nor is a shift, and a name is no operator."""
    template = "cat <<A <<-'B'\nit's\nA\n\tB\ncat <<< <<v>>\necho <<v>>\n"
    assert rendered(template, {"v": "a b"}).endswith("cat <<< 'a b'\necho 'a b'\n")


def test_names_without_a_value():
    """A name that has no value is named, with those that have one; what is no name stays as it is."""
    with pytest.raises(Unfit, match="<<lost>> in the template has no value; there are values for: input, workspace"):
        rendered("<<input>> <<lost>>", {"input": "x", "workspace": "/w"})
    assert rendered("a << b >> c <<-x>> <<>> <<1>>", {}) == "a << b >> c <<-x>> <<>> <<1>>"


def test_values_are_not_templates():
    """A value that looks like a name, or like a pattern's group, is only text."""
    assert rendered("echo <<a>>", {"a": "<<b>> \\1 \\g<0>", "b": "x"}) == "echo '<<b>> \\1 \\g<0>'"
    with pytest.raises(Unfit, match="holds a NUL"):
        rendered("echo <<a>>", {"a": "x\0y"})
