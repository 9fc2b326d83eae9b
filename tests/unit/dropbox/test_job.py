"""A job's file: what is read, what is refused and why, and what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.dropbox.job import Job, Refused, ending, kept_apart, mapping, placed, text, values

WHOLE = b"""
script: segment
args: {level: 6, start: 12:30, day: 2024-02-01, flag: yes, ratio: 1.50, none: null, word: "a\\\\b"}
input_map: {input: /data/chapter 1.mp3}
output_map: {segments: /tmp/chapter1.seg}
"""


def test_what_the_names_stand_for():
    """Arguments are as they stand in the file, files are base names; a workspace and the site's settings are there, too."""
    found = values(Job.parse(WHOLE), "/w/x", {"containers": "/sif", "level": "the site's"})
    assert found == {
        "containers": "/sif",
        "level": "6",
        "start": "12:30",
        "day": "2024-02-01",
        "flag": "yes",
        "ratio": "1.50",
        "word": "a\\b",
        "workspace": "/w/x",
        "input": "chapter 1.mp3",
        "segments": "chapter1.seg",
    }


def test_the_sections_of_the_format():
    """`hpc` and `job` have the keys of the format."""
    found = placed(Job.parse(WHOLE), "/w/x")
    assert found == {
        "workspace": "/w/x",
        "finished_file": "/w/x/finished.out",
        "input_map": {"input": "/w/x/input/chapter 1.mp3"},
        "output_map": {"segments": "/w/x/output/chapter1.seg"},
    }
    result = {"rc": 0, "stdout": "", "stderr": "", "start": "a", "end": "b"}
    assert ending("", result) == {"status": "ok", "message": "successful", **result}
    assert ending("", result | {"rc": 3})["message"] == "the job ended with return code 3"
    assert ending("no room", result)["status"] == "error"
    assert ending("no room").keys() == ending("", result).keys()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "holds None and no mapping"),
        (b"[1]", "no mapping"),
        (b"script: [", "is not YAML: while parsing"),
        (b"script: \xff", "is not UTF-8"),
        (b"script: !!python/object/apply:os.system [ls]", "is not YAML: could not determine a constructor"),
        (b"day: 2024-13-45", "is not YAML: month must be in 1..12"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (
            b"a: &a [x, x]\n"
            + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(98, 122))
            + b"args: {a: *y}\nscript: s",
            "no single value",
        ),
        (b"script: s\nargs: &x {a: *x}", "found unconstructable recursive node"),
        (b"x: " + b"y" * 10_000_000, "larger than 10,000,000 bytes"),
        (b"args: {}", "script: None is no name of a template"),
        (b"script: ../x", "script: '../x' is no name of a template"),
        (b"script: s\nargs: [1]", "args: \\[1\\] is no mapping"),
        (b"script: s\nargs: {a: [1]}", "args: the value of a is no single value: \\[1\\]"),
        (b"script: s\nargs: {1: a}", "args: the name 1 is no text"),
        (b"script: s\ninput_map: {a: x.mp3}", "input_map: a has to be an absolute path, not 'x.mp3'"),
        (b"script: s\noutput_map: {a: 3}", "output_map: a has to be an absolute path, not 3"),
        (b"script: s\noutput_map: {a: /x/}", "output_map: a is '/x/', which cannot be a file"),
        (b"script: s\noutput_map: {a: /x/..}", "cannot be a file"),
        (b'script: s\ninput_map: {a: "/x\\0y"}', "absolute path"),
        (b"script: s\noutput_map: {a: /x/y, b: /x/y}", "two outputs have the same path"),
    ],
    ids=str,
)
def test_what_is_refused(data, why):
    """A file that makes no sense is refused with the place and the reason, and nothing in it is run."""
    with pytest.raises(Refused, match=why):
        Job.parse(data)


def test_equal_names_are_kept_apart():
    """Equal base names are kept apart, whatever others are called, and keep their suffixes."""
    found = kept_apart({"a": "/x/t.mp3", "b": "/y/t.mp3", "c": "/z/t-2.mp3", "d": "/t.mp3", "e": "/q/.x", "f": "/r/.x"})
    assert found == {"a": "t.mp3", "b": "t-3.mp3", "c": "t-2.mp3", "d": "t-4.mp3", "e": ".x", "f": ".x-2"}


@given(st.dictionaries(st.text(max_size=9), st.text(), max_size=4), st.binary())
def test_whatever_was_printed(content, printed):
    """What is written is read again as it was, by the format's YAML, whatever it holds."""
    content |= {"job": ending("", {"rc": 1, "stdout": printed.decode(errors="replace")})}
    assert mapping(text(content)) == content
