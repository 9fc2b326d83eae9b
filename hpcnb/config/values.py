"""The kinds of values in the configuration: how each is read, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from hpcnb.errors import ConfigError
from hpcnb.units import parse_duration, parse_memory, shown

__all__ = ["Count", "Duration", "Line", "Lines", "Memory", "Name", "Options", "Positive", "Tags", "Values", "Word"]


def _read(parse: Callable[[Any], int]) -> BeforeValidator:
    """Let pydantic report what a parser refuses: it knows the key, the parser the remedy."""

    def validate(value: Any) -> int:
        try:
            return parse(value)
        except ConfigError as error:
            raise ValueError(error.what) from error

    return BeforeValidator(validate)


def _number(value: Any) -> Any:
    # YAML's "yes" is True, and True is 1 to Python.
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")  # noqa: TRY004 - pydantic reports a ValueError
    return value


def _matching(pattern: str, allowed: str) -> AfterValidator:
    def validate(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{shown(value)} is not allowed: {allowed}")
        return value

    return AfterValidator(validate)


def _lines(value: Any) -> Any:
    return value.splitlines() if isinstance(value, str) else value


def _words(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value


def _options(value: Any) -> Any:
    """Accept a bare option (``--exclusive:``), which is one without a value."""
    if not isinstance(value, Mapping):
        return value
    for name in value:
        if not re.fullmatch(r"--[a-z][a-z0-9-]*", str(name)):
            raise ValueError(f"{shown(name)} is not an option: write it in full, as --constraint")
    return {name: "" if found is None or found is True else found for name, found in value.items()}


Duration = Annotated[int, _read(parse_duration), Field(ge=1)]
Memory = Annotated[int, _read(parse_memory), Field(ge=1)]
Positive = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Line = Annotated[str, _matching(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", "one line without control characters")]
Word = Annotated[
    str, _matching(r"([A-Za-z0-9_][A-Za-z0-9_.,:/@+-]{0,254})?", "letters, digits and _ . , : / @ + -, no - or . first")
]
_Tag = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9_][A-Za-z0-9_.+/@-]{0,63}", "up to 64 letters, digits and _ . + / @ -, a letter or digit first"
    ),
]
Name = Annotated[
    str, _matching(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", "up to 64 letters, digits and _ . -, no - or . first")
]
Lines = Annotated[tuple[Line, ...], BeforeValidator(_lines)]
Tags = Annotated[tuple[_Tag, ...], BeforeValidator(_words)]
Options = Annotated[dict[str, Line], BeforeValidator(_options)]
_Key = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and _, no digit first")]
Values = dict[_Key, Line]
