"""The user's OpenSSH configuration: what it says of a host, and by which hosts the way leads there."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hpcnb.errors import ConfigError
from hpcnb.site.patterns import any_fits

_SYSTEM = Path("/etc/ssh")
_DEPTH = 16
_EXEC_TIMEOUT = 30.0
_LISTS = {"identityfile", "certificatefile"}
_LINE = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)")
_WORD = re.compile(r'"([^"]*)"|(\S+)')
_NUMBER = re.compile(r"(\d+)([smh]?)|none")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<host>\[[^]]+\]|[^:@\s\[\]]+)(?::(?P<port>\d+))?/?")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One SSH server, with all that the configuration says of it.

    Parameters
    ----------
    alias : str
        What the user calls it.
    host, port, user : str, int, str
    identities, certificates : tuple of Path
        Files of keys to offer, in order; where none is named, the usual ones that there are.
    identities_only : bool
        Offer no other key, even if the agent holds it.
    jumps : tuple of str
        ``ProxyJump``: the hosts to go through, as the user wrote them.
    key_alias : str
        ``HostKeyAlias``: stands for host and port in ``known_hosts``.
    user_known_hosts, global_known_hosts : tuple of Path
    hash_known_hosts : bool
    connect_timeout, alive_interval : float, int
        Seconds.
    """

    alias: str
    host: str
    port: int = 22
    user: str
    identities: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    identities_only: bool = False
    jumps: tuple[str, ...] = ()
    key_alias: str = ""
    user_known_hosts: tuple[Path, ...] = ()
    global_known_hosts: tuple[Path, ...] = ()
    hash_known_hosts: bool = False
    connect_timeout: float = 20.0
    alive_interval: int = 30


@dataclass(frozen=True, kw_only=True)
class _Block:
    """What follows a ``Host`` or ``Match``, with the block that an ``Include`` of its file stands in."""

    keyword: str
    words: tuple[str, ...]
    outer: _Block | None


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """One line."""

    block: _Block | None
    keyword: str
    words: tuple[str, ...]
    place: str


class Config:
    """A configuration as read.

    Parameters
    ----------
    file : Path, optional
        Read this one alone, as ``ssh -F`` does; by default the user's and the machine's.
    """

    def __init__(self, file: Path | None = None) -> None:
        mine = Path.home() / ".ssh"
        if file is not None:
            if not file.is_file():
                raise ConfigError(f"there is no SSH configuration {file}")
            self._settings = list(_read(file, mine))
        else:
            self._settings = [*_read(mine / "config", mine), *_read(_SYSTEM / "ssh_config", _SYSTEM)]
        self._final = any(
            setting.block and setting.block.keyword == "match" and "final" in setting.block.words
            for setting in self._settings
        )

    def route(self, alias: str) -> tuple[Endpoint, ...]:
        """Find the servers to go through to reach a host, itself the last.

        Raises
        ------
        ConfigError
            The configuration makes no sense, or asks for a ``ProxyCommand``.
        """
        return self._route(alias, ())

    def _route(self, written: str, seen: tuple[str, ...]) -> tuple[Endpoint, ...]:
        if written in seen:
            raise ConfigError(f"ProxyJump runs in a circle: {' → '.join((*seen, written))}", where=seen[0])
        end = self.lookup(written)
        if not end.jumps or end.jumps[0] in {written, end.alias}:  # `Host *` may well cover the jump host itself
            return (end,)
        first, *others = end.jumps
        return (*self._route(first, (*seen, written)), *map(self.lookup, others), end)

    def lookup(self, written: str) -> Endpoint:
        """What the configuration says of one host, written as ``[user@]host[:port]``."""
        match = _JUMP.fullmatch(written)
        if match is None or written.startswith("-"):
            raise ConfigError(f"{written!r} is no host name")
        alias = match["host"].strip("[]")
        found: dict[str, list[str]] = {key: [match[key]] for key in ("user", "port") if match[key]}
        for final in (False, True)[: 1 + self._final]:
            self._collect(alias, found, final=final)
            found.setdefault("hostname", ["%h"])  # settled by the first pass
        return _endpoint(alias, found)

    def _collect(self, alias: str, found: dict[str, list[str]], *, final: bool) -> None:
        verdicts: dict[int, bool] = {}

        def holds(block: _Block | None) -> bool:
            if block is None:
                return True
            if id(block) not in verdicts:
                verdicts[id(block)] = holds(block.outer) and _holds(block, alias, found, final=final)
            return verdicts[id(block)]

        for setting in self._settings:
            if not setting.words or not holds(setting.block):
                continue
            if setting.keyword in _LISTS:
                known = found.setdefault(setting.keyword, [])
                known.extend(word for word in setting.words[:1] if word not in known)
            elif setting.keyword == "proxycommand" and setting.words[0] != "none" and "proxyjump" not in found:
                raise ConfigError(
                    f"ProxyCommand cannot be used ({setting.place})",
                    where=alias,
                    remedy="Say the same with ProxyJump: `ProxyJump user@gateway`.",
                )
            else:
                found.setdefault(setting.keyword, list(setting.words))


def _read(path: Path, home: Path, outer: _Block | None = None, depth: int = 0) -> Iterator[_Setting]:
    if depth > _DEPTH:
        raise ConfigError(f"Include goes too deep in the SSH configuration {path}")
    block = outer
    for number, line in enumerate(read_text(path, "the SSH configuration").split("\n"), 1):
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            continue
        keyword, words = match[1].lower(), _words(match[2])
        if keyword in {"host", "match"}:
            block = _Block(keyword=keyword, words=words, outer=outer)
        elif keyword == "include":
            for file in _included(words, home):
                yield from _read(file, home, block, depth + 1)
        else:
            yield _Setting(block=block, keyword=keyword, words=words, place=f"{path} line {number}")


def read_text(path: Path, what: str) -> str:
    """What a file says; nothing, where there is none."""
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None


def _words(text: str) -> tuple[str, ...]:
    found = []
    for match in _WORD.finditer(text):
        if match[2] and match[2].startswith("#"):
            break
        found.append(match[1] if match[2] is None else match[2])
    return tuple(found)


def _included(patterns: tuple[str, ...], home: Path) -> Iterator[Path]:
    for pattern in patterns:
        path = home / Path(pattern).expanduser()
        yield from sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _holds(block: _Block, alias: str, found: dict[str, list[str]], *, final: bool) -> bool:
    host = _host(alias, found)
    if block.keyword == "host":
        return any_fits(host.lower() if final else alias, block.words)
    me = getpass.getuser()
    subject = {
        "host": host,
        "originalhost": alias,
        "user": found.get("user", [me])[0],
        "localuser": me,
    }
    words = iter(block.words)
    for word in words:
        wanted, criterion = not word.startswith("!"), word.lstrip("!").lower()
        if criterion == "all":
            holds = True
        elif criterion in {"final", "canonical"}:
            holds = final and criterion == "final"
        elif criterion == "exec":
            holds = _succeeds(_expand(next(words, ""), _tokens(alias, host, found)))
        else:
            patterns = next(words, "")
            if criterion in {"host", "originalhost"}:  # `Host` itself minds the case
                patterns, subject[criterion] = patterns.lower(), subject[criterion].lower()
            holds = criterion in subject and any_fits(subject[criterion], patterns.split(","))
        if holds is not wanted:
            return False
    return True


def _host(alias: str, found: dict[str, list[str]]) -> str:
    return _expand(found.get("hostname", ["%h"])[0], {"%": "%", "h": alias, "n": alias})


def _succeeds(line: str) -> bool:
    # The user's own line of the user's own configuration, which `ssh` hands to a shell just so.
    try:
        done = subprocess.run(["/bin/sh", "-c", line], stdin=subprocess.DEVNULL, timeout=_EXEC_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _tokens(alias: str, host: str, found: dict[str, list[str]]) -> dict[str, str]:
    me, here = getpass.getuser(), socket.gethostname()
    return {
        "%": "%",
        "d": str(Path.home()),
        "h": host,
        "i": str(os.getuid()),
        "k": host,
        "L": here.partition(".")[0],
        "l": here,
        "n": alias,
        "p": found.get("port", ["22"])[0],
        "r": found.get("user", [me])[0],
        "u": me,
    }


def _expand(text: str, tokens: dict[str, str]) -> str:
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)


def _endpoint(alias: str, found: dict[str, list[str]]) -> Endpoint:
    host = _host(alias, found)
    tokens = _tokens(alias, host, found)
    key_alias = _expand(found.get("hostkeyalias", [""])[0], tokens)
    tokens["k"] = key_alias or host
    mine = Path.home() / ".ssh"

    def files(keyword: str, *default: Path) -> tuple[Path, ...]:
        words = found.get(keyword, [str(path) for path in default])
        return tuple(
            Path(os.path.expandvars(_expand(word, tokens))).expanduser() for word in words if word.lower() != "none"
        )

    def yes(keyword: str) -> bool:
        return found.get(keyword, ["no"])[0].lower() == "yes"

    usual = [path for name in ("ed25519", "ecdsa", "rsa") if (path := mine / f"id_{name}").exists()]
    end = Endpoint(
        alias=alias,
        host=host,
        port=_number(found, "port", 22, alias),
        user=_expand(found.get("user", [getpass.getuser()])[0], tokens),
        identities=files("identityfile", *usual),
        certificates=files("certificatefile"),
        identities_only=yes("identitiesonly"),
        jumps=_jumps(found, tokens),
        key_alias=key_alias,
        user_known_hosts=files("userknownhostsfile", mine / "known_hosts", mine / "known_hosts2"),
        global_known_hosts=files("globalknownhostsfile", _SYSTEM / "ssh_known_hosts", _SYSTEM / "ssh_known_hosts2"),
        hash_known_hosts=yes("hashknownhosts"),
        alive_interval=_number(found, "serveraliveinterval", 0, alias) or Endpoint.alive_interval,
    )
    timeout = _number(found, "connecttimeout", 0, alias)
    return replace(end, connect_timeout=float(timeout)) if timeout else end


def _jumps(found: dict[str, list[str]], tokens: dict[str, str]) -> tuple[str, ...]:
    words = found.get("proxyjump", ["none"])
    return () if words[0].lower() == "none" else tuple(_expand(words[0], tokens).split(","))


def _number(found: dict[str, list[str]], keyword: str, default: int, alias: str) -> int:
    word = found.get(keyword, [str(default)])[0].lower()
    match = _NUMBER.fullmatch(word)
    if match is None:
        raise ConfigError(f"{keyword} {word!r} in the SSH configuration is no number", where=alias)
    return int(match[1]) * _UNITS[match[2]] if match[1] else default
