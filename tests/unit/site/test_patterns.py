"""OpenSSH's patterns."""

from __future__ import annotations

import pytest

from hpcnb.site.patterns import any_fits, fits


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("host", "host", True),
        ("host", "h*", True),
        ("host", "*", True),
        ("host", "h?st", True),
        ("host", "h?", False),
        ("host", "Host", False),
        ("[host]:22", "[host]:*", True),
        ("h", "[host]", False),
        ("a.b", "a.b", True),
        ("aXb", "a.b", False),
        ("", "*", True),
        ("", "?", False),
    ],
)
def test_a_pattern(name, pattern, expected):
    """A star is anything, a question mark one character, all else is itself."""
    assert fits(name, pattern) is expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a", "host"], True),
        (["*", "!host"], False),
        (["!host", "*"], False),
        (["!other"], False),
        (["!other", "*"], True),
        ([], False),
    ],
)
def test_a_list(patterns, expected):
    """One that fits will do, and one with a `!` that fits undoes it."""
    assert any_fits("host", patterns) is expected
