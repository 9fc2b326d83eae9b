"""Log in: keys first, then what only the user knows. Nothing secret is kept."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko

from hpcnb.errors import AuthenticationFailed
from hpcnb.site import hostkeys
from hpcnb.site.shell import Ask, Prompt
from hpcnb.site.ssh_config import Endpoint
from hpcnb.site.ssh_keys import Locked, Offer, Unusable, offers
from hpcnb.site.ssh_transport import Transport

_KEYS = 6  # as many as a server takes by default before it hangs up
_TRIES = 3
_RSA = "ssh-rsa"


async def log_in(transport: Transport, end: Endpoint, ask: Ask) -> None:
    """Authenticate a connection whose server is known to be the right one.

    Raises
    ------
    AuthenticationFailed
        With all that was tried, and what the server would take.
    """
    login = _Login(transport, end, ask)
    try:
        await login.run()
    finally:
        login.end()
        transport.forget()


class _Login:
    """One login: what was tried, and what may be tried yet. An attempt answers with what is left to do, or `None`."""

    def __init__(self, transport: Transport, end: Endpoint, ask: Ask) -> None:
        self._transport = transport
        self._end = end
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._tried: list[str] = []
        self._allowed: list[str] = []
        self._agent: paramiko.Agent | None = None
        self._offers: Iterator[Offer] | None = None
        self._locked: dict[Path, list[Offer]] = defaultdict(list)
        self._keys = _KEYS
        self._tries = {"keyboard-interactive": _TRIES, "password": _TRIES}
        self._asked = False
        self._asking: asyncio.Task[list[str]] | None = None
        self._over = False
        self._unanswered: AuthenticationFailed | None = None

    async def run(self) -> None:
        methods = {
            "publickey": self._publickey,
            "keyboard-interactive": self._interactive,
            "password": self._password,
        }
        left = await self._attempt("", self._transport.auth_none, self._end.user)
        if left is not None:
            self._allowed = left
        while not self._transport.is_authenticated():
            for name, method in methods.items():
                if name in self._allowed and (left := await method()) is not None:
                    self._allowed = left
                    break
            else:
                raise self._failure()

    def end(self) -> None:
        """Leave no question open, and no connection to the agent."""
        self._over = True
        if self._asking is not None:
            self._asking.cancel()
        if self._agent is not None:
            self._agent.close()

    async def _attempt(self, label: str, function: Callable[..., list[str]], *args: Any) -> list[str] | None:
        note, over = "refused", False
        try:
            return await self._transport.call(function, *args)
        except paramiko.BadAuthenticationType as error:
            self._allowed = error.allowed_types
        except (paramiko.SSHException, EOFError, OSError) as error:
            if self._asking is not None and not self._transport.is_active():
                await asyncio.wait((self._asking,))  # it ends with the connection, and knows more
            if self._unanswered is not None:
                raise self._unanswered from None
            if str(error) != "Authentication failed.":  # paramiko's words for a plain no
                note, over = str(error), True
        if label:
            self._tried.append(f"{label}: {note}")
        if over or not self._transport.is_active():
            raise self._failure()
        return None

    async def _publickey(self) -> list[str] | None:
        if self._offers is None:
            self._offers = iter(await self._transport.call(self._find_keys))
        for offer in self._offers:
            if self._keys and (left := await self._offer(offer)) is not None:
                return left
        while self._locked and self._keys:
            path = next(iter(self._locked))
            if (left := await self._unlock(path, self._locked.pop(path))) is not None:
                return left
        return None

    def _find_keys(self) -> list[Offer]:
        try:
            self._agent = paramiko.Agent()
            held: Sequence[paramiko.AgentKey] = self._agent.get_keys()
        except (paramiko.SSHException, OSError) as error:
            self._tried.append(f"agent: {error}")
            held = ()
        return list(offers(self._end, held))

    async def _offer(self, offer: Offer, passphrase: str = "") -> list[str] | None:
        if hostkeys.kind(offer.public) == _RSA and not self._takes_rsa():
            self._tried.append(f"{offer.label}: the server takes no RSA key")
            return None
        try:
            key = await self._transport.call(offer.load, passphrase)
        except Locked:
            self._locked[offer.path or Path()].append(offer)
            return None
        except Unusable as error:
            self._tried.append(f"{offer.label}: {error}")
            return None
        self._keys -= 1
        public = offer.public or key.asbytes()
        shown = f"{hostkeys.label(public)} {hostkeys.fingerprint(public)} ({offer.label})"
        left = await self._attempt(f"publickey {shown}", self._transport.auth_publickey, self._end.user, key)
        if left is not None:
            self._transport.login_ends = offer.ends
        return left

    def _takes_rsa(self) -> bool:
        # paramiko ends the connection over this, with all the other keys untried.
        algorithms = self._transport.server_extensions.get("server-sig-algs", b"")
        return not algorithms or b"rsa-sha2-" in algorithms

    async def _unlock(self, path: Path, locked: list[Offer]) -> list[str] | None:
        for _ in range(_TRIES):
            passphrase = await self._put("secret", f"Passphrase for {path}:")
            if not passphrase:
                break
            for offer in locked:
                if (left := await self._offer(offer, passphrase)) is not None:
                    return left
            if not self._locked.pop(path, None):
                return None
        self._tried.append(f"{path}: locked by a passphrase")
        return None

    async def _interactive(self) -> list[str] | None:
        self._transport.auth_timeout = float("inf")  # a user may look for his phone; the server has its own limit
        while self._allows("keyboard-interactive"):
            self._asked = False
            left = await self._attempt(
                "keyboard-interactive", self._transport.auth_interactive, self._end.user, self._answer
            )
            if left is not None or not self._asked:
                return left
        return None

    def _answer(self, title: str, instructions: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        """Answer one round of questions; called by the transport's thread."""
        if not prompts:
            return []  # PAM ends with such a round
        questions = self._answer_all(f"{title}\n{instructions}", prompts)
        return asyncio.run_coroutine_threadsafe(questions, self._loop).result()

    async def _answer_all(self, preface: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        if self._over:
            raise asyncio.CancelledError
        self._asked, self._asking = True, asyncio.current_task()
        answers = []
        for text, echo in prompts:
            answers.append(await self._put("text" if echo else "secret", f"{preface}\n{text}".strip()))
        return answers

    async def _password(self) -> list[str] | None:
        while self._allows("password"):
            password = await self._put("secret", f"{self._end.user}@{self._end.host}'s password:")
            if not password:
                break
            left = await self._attempt("password", self._transport.auth_password, self._end.user, password, None, False)
            if left is not None:
                return left
        return None

    def _allows(self, method: str) -> bool:
        self._tries[method] -= 1
        return method in self._allowed and self._tries[method] >= 0

    async def _put(self, kind: str, text: str) -> str:
        # The server wrote part of this; whoever shows it may be a terminal.
        shown = "".join(char for char in text if char.isprintable() or char == "\n")
        try:
            return await self._ask(Prompt(kind=kind, title=f"{self._end.user}@{self._end.alias}", text=shown))
        except Exception as error:  # whatever befell the asker, the login is over
            known = error if isinstance(error, AuthenticationFailed) else None
            self._unanswered = AuthenticationFailed(
                known.what if known else "the question could not be asked",
                where=self._end.alias,
                evidence=(known.evidence if known else f"{shown}\n{error!r}") or shown,
                remedy=known.remedy if known else "",
            )
            raise self._unanswered from error

    def _failure(self) -> AuthenticationFailed:
        seen = list(self._tried)
        if self._allowed:
            seen = [*(seen or ["no key was found"]), f"the server takes: {', '.join(self._allowed)}"]
        if self._transport.farewell:
            seen.append(self._transport.farewell)
        return AuthenticationFailed(
            f"{self._end.host} did not let {self._end.user} in",
            where=self._end.alias,
            evidence="\n".join(seen or ["the connection was ended before the login"]),
            remedy="Check User and IdentityFile in ~/.ssh/config. Where the agent holds many keys, name the one to use"
            " there and set `IdentitiesOnly yes`.",
        )
