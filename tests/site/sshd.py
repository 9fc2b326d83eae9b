"""A real sshd on a port of this machine, run by whoever runs the tests, and a user who answers its questions."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from hpcnb.errors import AuthenticationFailed
from hpcnb.sandbox.ground import free_ports

DEADLINE = 30.0


def keygen(path: Path, *options: str, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a pair of keys."""
    short = ["-b", "2048"] if kind == "rsa" else []  # a longer one takes seconds
    command = ["ssh-keygen", "-q", "-t", kind, *short, "-N", passphrase, "-C", path.name, "-f", path, *options]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def fingerprint(key: Path) -> str:
    """The fingerprint of a public key, by OpenSSH."""
    command = ["ssh-keygen", "-lf", f"{key}.pub"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]


def lock(key: Path, passphrase: str) -> None:
    """Encrypt a key that was not."""
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", key]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def certify(authority: Path, key: Path, *options: str) -> Path:
    """Sign a public key; the certificate lies beside it."""
    command = ["ssh-keygen", "-q", "-s", authority, "-I", key.name, *options, f"{key}.pub"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return key.with_name(f"{key.name}-cert.pub")


def hash_names(known_hosts: Path) -> None:
    """Hide the names in a file of known hosts."""
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known_hosts], check=True, capture_output=True)
    assert known_hosts.read_text().startswith("|1|")


def public(key: Path) -> str:
    """The type and the base64 of a public key."""
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


async def until(condition) -> None:
    """Wait for what sends no event: another process, or a thread of paramiko's."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def echo(reader, writer):
    """Send back what comes, and its end too."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


@contextlib.contextmanager
def ending(pipe):
    """The reader and the writer of a connection that is closed at the end."""
    try:
        yield pipe
    finally:
        pipe[1].close()


async def say(writer, data: bytes) -> None:
    """Write, and wait until most of it has gone."""
    writer.write(data)
    await writer.drain()


class User:
    """Answers questions in order, and remembers them; without an answer left, nobody is there."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.prompts = []

    async def __call__(self, prompt):
        self.prompts.append(prompt)
        if not self.answers:
            raise AuthenticationFailed("nobody is here")
        return self.answers.pop(0)


class Silent:
    """Never answers; knows when it was asked, and when the question was taken back."""

    def __init__(self, then=None) -> None:
        self.asked, self.withdrawn = asyncio.Event(), asyncio.Event()
        self._then = then

    async def __call__(self, prompt):
        self.asked.set()
        if self._then is not None:
            await asyncio.to_thread(self._then)
        try:
            await asyncio.Event().wait()
        finally:
            self.withdrawn.set()


class Sshd:
    """One server, with a client's configuration in which it is called ``site``.

    `prepare` may do something with the host key before the start. Its folder holds the key that may log in (``user``), its own (``host``), the ``known_hosts`` and the ``config``.
    """

    def __init__(self, folder: Path, *options: str, name: str = "site", prepare=None) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
        if program is None or shutil.which("ssh-keygen") is None:
            pytest.skip("apt-get install openssh-server")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        folder.mkdir(exist_ok=True)
        self.folder, self.name, self.me = folder, name, getpass.getuser()
        self.user, self.host = keygen(folder / "user"), keygen(folder / "host")
        self.known_hosts, self.config = folder / "known_hosts", folder / "config"
        self.lines: list[str] = []
        self.authorize(public(self.user))
        if prepare:
            prepare(self.host)
        (self.port,) = free_ports(1)
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public(self.host)}\n")
        self.configure()
        text = [
            *options,  # the first of each counts
            f"ListenAddress 127.0.0.1:{self.port}",
            f"HostKey {self.host}",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            f"SetEnv HOME={folder}",  # what the developer's own shell does at start is no part of a test
            "PidFile none",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "PermitRootLogin prohibit-password",
            *([] if any(option.startswith("Subsystem") for option in options) else ["Subsystem sftp internal-sftp"]),
            "LogLevel VERBOSE",
        ]
        (folder / "sshd_config").write_text("\n".join(text) + "\n")
        self._start([program, "-D", "-e", "-f", str(folder / "sshd_config")])

    def authorize(self, *lines: str) -> None:
        """Let these keys in, and no others."""
        (self.folder / "authorized_keys").write_text("\n".join(lines) + "\n")

    def configure(self, *lines: str, identity: Path | None = None) -> Path:
        """Write the client's configuration anew; lines given win over the usual ones."""
        text = [
            f"Host {self.name}",
            *lines,
            "HostName 127.0.0.1",
            f"Port {self.port}",
            f"User {self.me}",
            f"IdentityFile {identity or self.user}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile none",
        ]
        self.config.write_text("\n  ".join(text) + "\n")
        return self.config

    def _start(self, command: list[str]) -> None:
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment, cwd="/"
        )
        listening = threading.Event()

        def read() -> None:
            for line in self._process.stderr:
                self.lines.append(line)
                if line.startswith("Server listening"):
                    listening.set()

        self._reader = threading.Thread(target=read)
        self._reader.start()
        if not listening.wait(DEADLINE):
            self.stop()
            pytest.fail(f"sshd does not start: {self.lines}")

    @property
    def pid(self) -> int:
        """Of the process that listens."""
        return self._process.pid

    @property
    def connections(self) -> int:
        """How many TCP connections the server has seen."""
        return sum(line.startswith("Connection from") for line in self.lines)

    @property
    def rekeys(self) -> int:
        """How many times the keys of a connection were changed (seen with ``LogLevel DEBUG``)."""
        return sum("rekeying in" in line for line in self.lines)

    def kill_connections(self) -> None:
        """Kill the processes that serve connections, but not the one that listens."""
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

    def stop(self) -> None:
        """End the server and all that it serves."""
        self.kill_connections()
        self._process.terminate()
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self._process.stderr.close()
