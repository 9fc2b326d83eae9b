"""Text of others made harmless: what a terminal or a browser would obey is shown instead."""

from __future__ import annotations

import html


def visible(text: str) -> str:
    """One line in which every control character can be seen, and none acts.

    Examples
    --------
    >>> visible("a\\x1b[31m\\nb")
    'a␛[31m␊b'
    """
    return "".join(c if c.isprintable() else _picture(c) for c in text)


def _picture(character: str) -> str:
    return chr(0x2400 + ord(character)) if ord(character) < 0x20 else "�"


def escaped(text: str) -> str:
    """The same for HTML, as text or within an attribute."""
    return html.escape(visible(text))
