"""Tasks that are waited for together, and that fail together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpcnb.tasks.where import Where

__all__ = ["Group"]


class Group:
    """Some tasks of a program.

    Parameters
    ----------
    name : str
    where : Where
    spared : callable
        Whether the error of a member, by its key, is not the group's.
    """

    def __init__(self, name: str, where: Where, spared: Callable[[str], bool]) -> None:
        self.name = name
        self.members: dict[str, Any] = {}
        self._where = where
        self._spared = spared

    def wait(self) -> None:
        """Wait for the members; the first error of one that fails is raised, then they are members no longer.

        In a group with a name an error cancels the others. Who was cancelled has not failed.
        """
        members = dict(self.members)
        failed = []
        for task, status in self._where.ended(list(members.values())):
            if status == "error" and not self._spared(task.key):
                failed.append(task)
                if self.name:
                    self.cancel()
                    break
        for key in members:
            self.members.pop(key, None)
        self._where.gather(failed[:1])

    def cancel(self) -> None:
        """Cancel those that have not ended."""
        self._where.cancel([task for task in self.members.values() if not task.done()])

    def __repr__(self) -> str:
        return f"<group {self.name!r} of {len(self.members)} tasks>"
