"""Templates of job scripts: `<<name>>` becomes a value that the shell takes as one word, wherever it stands. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

NAME = re.compile(r"<<([A-Za-z_][A-Za-z0-9_]*)>>")
_HERE = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]+)'|\"([^\"\n]+)\"|\\?([A-Za-z0-9_.+-]+))")
_SHELL = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+)*)?(?:\S*/)?(?:sh|bash|dash|ksh|zsh)\b")
_OPENS = {
    "'": "single",
    '"': "double",
    "$'": "ansi",
    "`": "backtick",
    "${": "brace",
    "$((": "arithmetic",
    "$(": "plain",
}
_CLOSES = {
    "single": "'",
    "double": '"',
    "ansi": "'",
    "backtick": "`",
    "brace": "}",
    "arithmetic": "))",
    "comment": "\n",
}
_WITHIN = {
    "backtick": "backticks",
    "brace": "${…}",
    "ansi": "$'…'",
    "arithmetic": "$((…))",
    "here": "a here-document",
    "comment": "a comment, which a line break would end",
}


class Unfit(Exception):
    """A template cannot be filled with these values; says why."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a name stands: its piece of the text, and within which quotes of the shell."""

    begin: int
    end: int
    name: str
    within: str


def rendered(template: str, values: Mapping[str, str]) -> str:
    r"""A template with its values, each of which stays one harmless word of the shell.

    Within quotes of the template a value is escaped as those demand. Where no quoting would be safe (backticks, here-documents, a
    script that is none of the shell's) only values are accepted that need none.

    Raises
    ------
    Unfit
        A name has no value, or a value cannot be quoted where it would have to be.

    Examples
    --------
    >>> print(rendered('play <<a>> "<<b>>"', {"a": "x; rm -rf /", "b": "$HOME"}))
    play 'x; rm -rf /' "\$HOME"
    """
    if missing := [name for name in NAME.findall(template) if name not in values]:
        there = ", ".join(sorted(values))
        raise Unfit(f"<<{missing[0]}>> in the template has no value; there are values for: {there}")
    pieces, last = [], 0
    for place in _places(template):
        line = template.count("\n", 0, place.begin) + 1
        pieces += [template[last : place.begin], _word(place, values[place.name], line)]
        last = place.end
    return "".join([*pieces, template[last:]])


def _word(place: _Place, value: str, line: int) -> str:
    if "\0" in value:
        raise Unfit(f"the value of <<{place.name}>> holds a NUL, which no command can be given")
    quoted = shlex.quote(value)
    if quoted == value or (place.within == "comment" and "\n" not in value):
        return value
    if place.within == "plain":
        return quoted
    if place.within == "double":
        return re.sub(r'([\\"$`])', r"\\\1", value)
    if place.within == "single":
        return value.replace("'", "'\\''")
    where = f"within {_WITHIN[place.within]}" if place.within in _WITHIN else place.within
    raise Unfit(
        f"<<{place.name}>> in line {line} of the template stands {where}, where {value!a:.200} cannot be quoted"
    )


def _places(text: str) -> Iterator[_Place]:
    """The names of a template, each with the quotes around it; where these are beyond us it says so."""
    if text.startswith("#!") and not _SHELL.match(text):
        doubt = "in a script that is none of the shell's"
    else:
        places, doubt = _Scan(text).places()
        if not doubt:
            yield from places
            return
    for found in NAME.finditer(text):
        yield _Place(begin=found.start(), end=found.end(), name=found[1], within=doubt)


class _Scan:
    """Reads a script as the shell does, as far as quotes are concerned."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._stack = ["plain"]
        self._heres: list[tuple[str, bool]] = []
        self._places: list[_Place] = []
        self._doubt = ""

    def places(self) -> tuple[list[_Place], str]:
        """The names, and why all of this is doubtful; empty: it is not."""
        while self._at < len(self._text):
            self._at = self._step()
        if self._stack[-1] == "comment":
            self._stack.pop()
        if self._stack != ["plain"] or self._heres:
            self._doubt = "in a script whose quotes are never closed"
        return self._places, self._doubt

    def _step(self) -> int:
        """Look at what is here; where to go on."""
        text, at, within = self._text, self._at, self._stack[-1]
        if found := NAME.match(text, at):
            self._note(found, within)
            return found.end()
        if text[at] == "\\" and within not in ("single", "comment"):
            return at + (1 if NAME.match(text, at + 1) else 2)
        if (close := _CLOSES.get(within)) and text.startswith(close, at):
            self._stack.pop()
            return at if close == "\n" else at + len(close)
        if within in ("plain", "double"):
            return self._opened(within)
        return at + 1

    def _note(self, found: re.Match[str], within: str) -> None:
        if found.start() and self._text[found.start() - 1] in "$\\" and within != "single":
            within = f"behind {self._text[found.start() - 1]}"
        self._places.append(_Place(begin=found.start(), end=found.end(), name=found[1], within=within))

    def _opened(self, within: str) -> int:
        """Look at what may open something, in plain text or within double quotes."""
        text, at = self._text, self._at
        for sign in ("$((", "$(", "${") if within == "double" else ("$((", "$(", "${", "$'", "'"):
            if text.startswith(sign, at):
                self._stack.append(_OPENS[sign])
                return at + len(sign)
        if text[at] in '"`':
            self._stack.append(_OPENS[text[at]])
            return at + 1
        return self._plain() if within == "plain" else at + 1

    def _plain(self) -> int:
        text, at = self._text, self._at
        begins = at == 0 or text[at - 1] in " \t\n;&|()"
        if text[at] == "#" and begins:
            self._stack.append("comment")
        elif text[at] == "(":
            self._stack.append("plain")
        elif text[at] == ")" and len(self._stack) > 1:
            self._stack.pop()
        elif text[at] == "\n" and self._heres:
            return self._bodies(at + 1)
        elif text.startswith("<<<", at):
            return at + 3
        elif text.startswith("<<", at) and (here := _HERE.match(text, at)):
            self._heres.append((here[2] or here[3] or here[4], bool(here[1])))
            return here.end()
        elif begins and len(self._stack) > 1 and re.match(r"case\b", text[at:]):
            self._doubt = "in a script with a `case` in parentheses"  # whose own ones need not be balanced
        return at + 1

    def _bodies(self, at: int) -> int:
        """Pass over the here-documents that begin in this line."""
        for word, tabs in self._heres:
            while at < len(self._text):
                line = self._text[at:].split("\n", 1)[0]
                for found in NAME.finditer(self._text, at, at + len(line)):
                    self._note(found, "here")
                at += len(line) + 1
                if (line.lstrip("\t") if tabs else line) == word:
                    break
        self._heres = []
        return min(at, len(self._text))
