"""Durations and amounts of memory."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.errors import ConfigError
from hpcnb.units import format_duration, parse_duration, parse_memory, shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        (" 2D ", 172800),
        ("0.1s", 1),
        ("01:30", 90),
        ("00:30:00", 1800),
        ("90:00", 5400),
        ("2-00:00:00", 172800),
        ("1-12", 129600),
        ("1-12:30", 131400),
        (90, 90),
        (0.2, 1),
        ("0s", 0),
    ],
)
def test_durations_as_people_write_them(text, seconds):
    """A duration is understood in our spelling, in Slurm's, and as bare seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        " ",
        "soon",
        "1x",
        "-5m",
        "1h30",
        "30m1h",
        "1:2:3:4",
        "1e3",
        "inf",
        "٣s",
        "9" * 5000,
        "5 m m",
        b"90s",
        None,
        True,
        -1,
        math.nan,
        math.inf,
        1e12,
        [],
        {},
    ],
)
def test_what_is_no_duration_is_refused(nonsense):
    """Nonsense is refused with the spellings that are allowed, never with another exception."""
    with pytest.raises(ConfigError, match="is not a duration") as caught:
        parse_duration(nonsense)
    assert "a bare number is seconds" in caught.value.remedy


@given(st.integers(0, 10**9 - 1))
def test_a_formatted_duration_reads_back(seconds):
    """What `format_duration` writes, `parse_duration` reads as the same number."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_slurm_spelling_and_ours_agree(days, hours, minutes, seconds):
    """The two spellings of one duration mean the same."""
    ours = parse_duration(f"{days}d{hours}h{minutes}m{seconds}s")
    assert parse_duration(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == ours


@given(st.text() | st.from_regex(r"[0-9dhms:. -]*", fullmatch=True))
def test_any_text_is_a_duration_or_a_config_error(text):
    """No text at all makes the parser fail in another way."""
    try:
        assert parse_duration(text) >= 0
    except ConfigError:
        pass


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GiB", 2**34), ("16 gib", 2**34), ("500MB", 5 * 10**8), ("1.5kB", 1500), ("0B", 0), ("2TiB", 2**41)],
)
def test_memory_as_people_write_it(text, size):
    """An amount of memory is a number and a unit, of 1000 or of 1024."""
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "nonsense", ["16", "16G", "GiB", "", "1 2GB", "-1GB", "1e3MB", 16, 1.5, None, True, [], b"1GB"]
)
def test_memory_without_a_clear_unit_is_refused(nonsense):
    """A missing or ambiguous unit is an error that says which units there are."""
    with pytest.raises(ConfigError, match="is not an amount of memory") as caught:
        parse_memory(nonsense)
    assert "GiB" in caught.value.remedy


@given(st.text() | st.from_regex(r"[0-9. ]*[kKmMgGiIbB]*", fullmatch=True))
def test_any_text_is_memory_or_a_config_error(text):
    """No text at all makes the parser fail in another way."""
    try:
        assert parse_memory(text) >= 0
    except ConfigError:
        pass


def test_a_quoted_value_is_cut():
    """A message never repeats a megabyte that somebody typed."""
    assert len(shown("x" * 10**6)) == 60
