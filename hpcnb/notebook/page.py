"""Which connection of a front end has sent the cell that runs: a page that is loaded anew is another one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["page_of"]


def page_of(shell: InteractiveShell) -> dict[str, Any]:
    """Return the ``page`` and when it has ``sent`` the cell, by its own clock; in a terminal there is none."""
    kernel: Any = getattr(shell, "kernel", None)
    header = kernel.get_parent().get("header", {}) if kernel is not None else {}
    date = header.get("date")
    if isinstance(date, str):
        date = datetime.fromisoformat(date)
    return {"page": header.get("session", ""), "sent": date.timestamp() if date else 0.0}
