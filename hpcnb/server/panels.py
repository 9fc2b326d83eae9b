"""What all open pages share: one connection to the agent, its news, and its questions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from hpcnb.agent.client import AgentClient, nobody_to_ask
from hpcnb.errors import AuthenticationFailed
from hpcnb.model import ClusterStatus
from hpcnb.site.shell import Prompt

__all__ = ["Panels"]

Heard = Callable[[str, dict[str, Any]], None]
"""Takes a message under its subject; a later one of the same subject replaces it."""


class Panels:
    """The pages that listen, and what they are told."""

    def __init__(self) -> None:
        self.agent = AgentClient(self.ask)
        self._stop = self.agent.listen("", self._on_status)
        self._pages: set[Heard] = set()
        self._numbers = itertools.count(1)
        self._questions: dict[int, tuple[dict[str, Any], asyncio.Future[str]]] = {}

    def join(self, heard: Heard) -> Callable[[], None]:
        """Tell a page everything from now on, first of all the questions that wait; returns what ends that."""
        self._pages.add(heard)
        for number, (question, _) in self._questions.items():
            heard(f"question {number}", question)
        return lambda: self._pages.discard(heard)

    def _say(self, subject: str, message: dict[str, Any]) -> None:
        for heard in list(self._pages):
            heard(subject, message)

    def _on_status(self, status: ClusterStatus) -> None:
        self._say(f"cluster {status.id}", {"type": "cluster", "cluster": status.to_json()})

    async def ask(self, prompt: Prompt) -> str:
        """Put a question to all pages; the first answer counts. A page that is loaded anew meanwhile has it again."""
        if not self._pages:
            return await nobody_to_ask(prompt)
        if prompt.kind == "notice":
            self._say(f"notice {prompt.title}", {"type": "notice", "title": prompt.title, "text": prompt.text})
            return ""
        number = next(self._numbers)
        question = {
            "type": "question",
            "number": number,
            "kind": prompt.kind,
            "title": prompt.title,
            "text": prompt.text,
        }
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._questions[number] = question, answer
        self._say(f"question {number}", question)
        try:
            return await answer
        finally:
            del self._questions[number]
            self._say(f"question {number}", {"type": "answered", "number": number})

    def answer(self, number: int, text: str | None) -> None:
        """Take a page's answer to a question; None: the user would not answer."""
        _, answer = self._questions.get(number, (None, None))
        if answer is None or answer.done():
            return
        if text is None:
            answer.set_exception(AuthenticationFailed("the question was dismissed"))
        else:
            answer.set_result(text)

    async def close(self) -> None:
        """Disconnect; the agent and the clusters go on."""
        self._stop()
        await self.agent.close()
