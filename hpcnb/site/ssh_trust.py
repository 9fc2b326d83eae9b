"""Is the login node the one we know? By ``known_hosts``, and at first contact by the user."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import paramiko

from hpcnb.errors import AuthenticationFailed, ConfigError, HostKeyMismatch
from hpcnb.site import hostkeys
from hpcnb.site.hostkeys import Judgement, KnownHosts, Verdict
from hpcnb.site.shell import Ask, Prompt
from hpcnb.site.ssh_config import Endpoint, read_text

_UNSENT = "Nothing was sent to it."


def read(end: Endpoint) -> KnownHosts:
    """What the files of known hosts say of a server."""
    entries = (
        entry
        for path in (*end.user_known_hosts, *end.global_known_hosts)
        for entry in hostkeys.parse(_text(path), str(path))
    )
    return KnownHosts(entries, end.key_alias) if end.key_alias else KnownHosts(entries, end.host, end.port)


async def check(transport: paramiko.Transport, end: Endpoint, known: KnownHosts, ask: Ask) -> None:
    """Go on only if the server showed a key that is on record, or that the user vouches for.

    Raises
    ------
    HostKeyMismatch
        The key changed, was revoked, or nobody vouched for it.
    """
    shown = transport.get_remote_server_key()
    key, certificate = shown.asbytes(), shown.public_blob.key_blob if shown.public_blob else b""
    judgement = known.judge(key, certificate)
    if judgement.verdict is Verdict.KNOWN:
        return
    if judgement.verdict is not Verdict.UNKNOWN:
        raise _mismatch(end, known, key, judgement)
    if await _vouched(end, known, key, ask):
        await asyncio.to_thread(_remember, end, known.name, key)
        return
    raise HostKeyMismatch(
        f"nobody vouched for the host key of {known.name}. {_UNSENT}",
        where=end.alias,
        evidence="\n".join(filter(None, [_describe(key), judgement.flaw and f"its certificate: {judgement.flaw}"])),
        remedy="Compare the fingerprint with the one that the site publishes; then connect where you are asked, as by `hpcnb login` in a "
        "terminal, and say yes.",
    )


async def _vouched(end: Endpoint, known: KnownHosts, key: bytes, ask: Ask) -> bool:
    text = (
        f"The authenticity of host '{known.name}' can't be established.\n"
        f"{hostkeys.label(key)} key fingerprint is {hostkeys.fingerprint(key)}.\n"
        "Are you sure you want to continue connecting (yes/no)?"
    )
    try:
        answer = await ask(Prompt(kind="confirm", title=f"{end.user}@{end.alias}", text=text))
    except AuthenticationFailed:
        return False
    return answer.strip().lower() == "yes"


def _mismatch(end: Endpoint, known: KnownHosts, key: bytes, judgement: Judgement) -> HostKeyMismatch:
    entry = judgement.entry
    place = f"{entry.file} line {entry.line}" if entry else ""
    shown = f"shown now: {_describe(key)}"
    if judgement.verdict is Verdict.REVOKED:
        return HostKeyMismatch(
            f"the host key of {known.name} is revoked. {_UNSENT}",
            where=end.alias,
            evidence=f"{shown}\nrevoked in {place}",
            remedy="Somebody may pose as the login node. Ask the site's support.",
        )
    command = shlex.join(["ssh-keygen", "-R", known.name, "-f", entry.file if entry else ""])
    return HostKeyMismatch(
        f"the host key of {known.name} has changed. {_UNSENT}",
        where=end.alias,
        evidence=f"on record: {_describe(entry.key if entry else b'')} ({place})\n{shown}",
        remedy=f"Somebody may pose as the login node. If the site says that the key is new: {command}",
    )


def _describe(key: bytes) -> str:
    return f"{hostkeys.label(key)} {hostkeys.fingerprint(key)}"


def _text(path: Path) -> str:
    # A file that we cannot read may revoke the very key we are shown.
    return read_text(path, "the known hosts in")


def _remember(end: Endpoint, name: str, key: bytes) -> None:
    line = hostkeys.record(name, key, hashed=end.hash_known_hosts)
    for path in end.user_known_hosts[:1]:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            torn = (text := _text(path)) and not text.endswith("\n")
            with path.open("a") as file:
                file.write(f"\n{line}" if torn else line)
        except OSError as error:
            raise ConfigError(f"the known hosts in {path} cannot be written: {error.strerror}") from None
