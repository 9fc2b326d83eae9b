"""Logging in: keys, certificates, the agent and passphrases on a real sshd, passwords and codes on a stand-in."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import paramiko
import pytest

from hpcnb.errors import AuthenticationFailed
from tests.site.sshd import DEADLINE, Silent, User, certify, fingerprint, keygen, lock, public

pytestmark = pytest.mark.site


@pytest.fixture
def agent(monkeypatch):
    """An agent; gives what adds a key to it."""
    folder = Path(tempfile.mkdtemp(prefix="hpcnb-"))  # a socket's path must be short
    process = subprocess.Popen(["ssh-agent", "-D", "-a", folder / "agent"], stdout=subprocess.PIPE)
    process.stdout.readline()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(folder / "agent"))

    def add(key: Path, *options: str) -> None:
        subprocess.run(["ssh-add", "-q", *options, key], check=True)

    yield add
    process.send_signal(signal.SIGTERM)
    process.wait(DEADLINE)
    process.stdout.close()
    shutil.rmtree(folder)


async def refused(connect, sshd, *answers: str) -> AuthenticationFailed:
    """The error of a login that must fail."""
    with pytest.raises(AuthenticationFailed) as caught:
        await connect(sshd, *answers)
    assert caught.value.where == sshd.name
    return caught.value


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_a_key_of_each_kind_opens(sshd, connect, kind):
    """The usual kinds of keys log in without a question."""
    key = keygen(sshd.folder / "mine", kind=kind)
    sshd.authorize(public(key))
    sshd.configure(identity=key)
    user = User()
    assert (await (await connect(sshd, user=user)).run(["echo", "in"])).out == "in\n"
    assert user.prompts == []


@pytest.mark.parametrize("form", ["PEM", "PKCS8"])
async def test_old_key_files_open(sshd, connect, form):
    """Key files in the formats of old are read too, locked ones included."""
    key = keygen(sshd.folder / "mine", "-m", form, kind="rsa", passphrase="sesame")
    sshd.authorize(public(key))
    sshd.configure(identity=key)
    assert await connect(sshd, "sesame")


async def test_a_wrong_key_is_named(sshd, connect):
    """The error lists each key by fingerprint and file, and what the server would take."""
    key = keygen(sshd.folder / "wrong")
    sshd.configure(identity=key)
    error = await refused(connect, sshd)
    assert f"publickey ED25519 {fingerprint(key)} ({key}): refused" in error.evidence
    assert "the server takes: publickey" in error.evidence
    assert "IdentityFile" in error.remedy


async def test_a_missing_key_is_named(sshd, connect):
    """A key file that is configured but not there is said to be missing."""
    sshd.configure(identity=sshd.folder / "nowhere")
    assert f"{sshd.folder}/nowhere: No such file" in (await refused(connect, sshd)).evidence


async def test_a_security_key_needs_the_agent(sshd, connect):
    """A key that lives in a token is not asked for a passphrase in vain: the error says what to do."""
    key = sshd.folder / "token"
    blob = b"\0\0\0\x1ask-ssh-ed25519@openssh.com" + bytes(36)
    Path(f"{key}.pub").write_text(f"sk-ssh-ed25519@openssh.com {base64.b64encode(blob).decode()}\n")
    sshd.configure(identity=key)
    assert f"{key}: a security key works through the agent" in (await refused(connect, sshd)).evidence


async def test_the_second_key_opens(sshd, connect):
    """All keys that are named are tried in order."""
    keys = [keygen(sshd.folder / f"key{n}") for n in range(3)]
    sshd.authorize(public(keys[2]))
    sshd.configure(f"IdentityFile {keys[0]}", f"IdentityFile {keys[1]}", identity=keys[2])
    assert await connect(sshd)


async def test_a_locked_key_asks_for_its_passphrase(sshd, connect):
    """The passphrase is asked for without echo, again when it is wrong, and the file is named."""
    key = keygen(sshd.folder / "locked", passphrase="open sesame")
    sshd.authorize(public(key))
    sshd.configure(identity=key)
    user = User("wrong", "open sesame")
    await connect(sshd, user=user)
    assert [prompt.kind for prompt in user.prompts] == ["secret", "secret"]
    assert str(key) in user.prompts[0].text


async def test_a_key_that_stays_locked_is_named(sshd, connect):
    """No passphrase, no key: the error says so."""
    key = keygen(sshd.folder / "locked", passphrase="open sesame")
    sshd.configure(identity=key)
    assert f"{key}: locked" in (await refused(connect, sshd, "")).evidence


async def test_nobody_to_ask(sshd, connect):
    """When a passphrase is needed and nobody is there, that is the error."""
    sshd.configure(identity=keygen(sshd.folder / "locked", passphrase="open sesame"))
    assert (await refused(connect, sshd)).what == "nobody is here"


def test_a_question_without_a_terminal(sshd, isolated):
    """A script hears once what was asked, that nobody can answer, and where that would be: `hpcnb login` of that site."""
    sshd.configure(identity=keygen(sshd.folder / "locked", passphrase="open sesame"))
    site = {"host": "site", "ssh-config": str(sshd.config)}
    isolated.configure(json.dumps({"hpcnb": {"sites": {"far": site}}}))
    command = [sys.executable, "-m", "hpcnb.cli", "login", "far"]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    first, question, remedy = said.stderr.splitlines()
    assert first.startswith("AuthenticationFailed: ")
    assert first.endswith("asks, and nobody can answer here (site)")
    assert question.startswith("  | Passphrase for ")
    assert remedy.startswith("→ Log in where you can type: `hpcnb login` in a terminal")


async def test_a_certificate_opens(sshd, connect):
    """A certificate beside the key logs in where only the authority is known."""
    authority, key = keygen(sshd.folder / "authority"), keygen(sshd.folder / "mine", kind="rsa")
    sshd.authorize(f'cert-authority,principals="me" {public(authority)}')
    sshd.configure(identity=key)
    await refused(connect, sshd)
    certify(authority, key, "-n", "me")
    assert await connect(sshd)


async def test_the_end_of_a_certificate_is_known(sshd, connect):
    """A certificate that expires says when; one that does not, and a bare key, say nothing."""
    authority, key = keygen(sshd.folder / "authority"), keygen(sshd.folder / "mine")
    sshd.authorize(public(sshd.user), f'cert-authority,principals="me" {public(authority)}')
    assert (await connect(sshd)).login_ends is None
    sshd.configure(identity=key)
    certify(authority, key, "-n", "me")
    assert (await connect(sshd)).login_ends is None
    certify(authority, key, "-n", "me", "-V", "+30m")
    assert (await connect(sshd)).login_ends == pytest.approx(time.time() + 1800, abs=60)


async def test_a_certificate_may_lie_elsewhere(sshd, connect):
    """CertificateFile names a certificate anywhere."""
    authority, key = keygen(sshd.folder / "authority"), keygen(sshd.folder / "mine")
    sshd.authorize(f'cert-authority,principals="me" {public(authority)}')
    certify(authority, key, "-n", "me").rename(sshd.folder / "elsewhere")
    sshd.configure(f"CertificateFile {sshd.folder}/elsewhere", identity=key)
    assert await connect(sshd)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
async def test_a_certificate_in_the_agent_opens(sshd, connect, agent, kind):
    """The agent may hold key and certificate; the file is not even there."""
    authority, key = keygen(sshd.folder / "authority"), keygen(sshd.folder / "mine", kind=kind)
    certify(authority, key, "-n", "me")
    agent(key)
    key.unlink()
    sshd.authorize(f'cert-authority,principals="me" {public(authority)}')
    sshd.configure("IdentitiesOnly no", identity=sshd.user)
    assert await connect(sshd)


async def test_the_agent_spares_the_passphrase(sshd, connect, agent):
    """A locked key that the agent holds needs no answer from the user."""
    key = keygen(sshd.folder / "mine")
    agent(key)
    lock(key, "sesame")
    sshd.authorize(public(key))
    sshd.configure(identity=key)
    assert await connect(sshd)


@pytest.mark.parametrize("only", ["yes", "no"])
async def test_the_agent_offers_no_more_than_is_named(sshd, connect, agent, only):
    """With IdentitiesOnly the agent's other keys are not offered, without it they are."""
    key = keygen(sshd.folder / "mine")
    agent(key)
    sshd.authorize(public(key))
    sshd.configure(f"IdentitiesOnly {only}", identity=sshd.user)
    if only == "no":
        assert await connect(sshd)
    else:
        assert "agent:" not in (await refused(connect, sshd)).evidence


async def test_a_strict_server_is_not_annoyed(start_sshd, connect, agent):
    """Where two attempts end the connection, the key that is named goes first, before all that the agent holds."""
    sshd = start_sshd("MaxAuthTries 2")
    for n in range(5):
        agent(keygen(sshd.folder / f"other{n}"))
    sshd.configure("IdentitiesOnly no")
    assert await connect(sshd)


async def test_too_many_attempts_are_told(start_sshd, connect, agent):
    """When the server hangs up over the number of keys, the error says how to name the right one."""
    sshd = start_sshd("MaxAuthTries 2")
    for n in range(5):
        agent(keygen(sshd.folder / f"other{n}"))
    sshd.configure("IdentitiesOnly no", identity=sshd.folder / "nowhere")
    error = await refused(connect, sshd)
    assert "Too many authentication failures" in error.evidence
    assert "IdentitiesOnly yes" in error.remedy


async def test_an_agent_that_will_not_sign_is_passed_over(sshd, connect, agent):
    """A key that the agent holds but refuses to use is one failed attempt, not the end of the connection."""
    key = keygen(sshd.folder / "mine")
    agent(key, "-c")  # asks for a confirmation, which nobody gives
    sshd.authorize(public(key), public(sshd.user))
    sshd.configure(f"IdentityFile {key}")
    assert await connect(sshd)


async def test_a_server_without_rsa_does_not_end_the_login(start_sshd, connect):
    """An RSA key is not even offered to a server that takes none, and the next key opens."""
    sshd = start_sshd("PubkeyAcceptedAlgorithms ssh-ed25519")
    sshd.configure(f"IdentityFile {keygen(sshd.folder / 'mine', kind='rsa')}")
    assert await connect(sshd)


class Gate(paramiko.ServerInterface):
    """A server's side of a login: methods in order, each with its answers.

    `steps` are such as ``("publickey", "password")`` or ``("keyboard-interactive", [round, …])``, where a round is a
    list of (prompt, echo, right answer).
    """

    def __init__(self, *steps) -> None:
        self.steps = list(steps)
        self.attempts = []

    def hang_up(self):
        """End the connection."""
        self.transport.close()

    def get_allowed_auths(self, username):
        return self.steps[0][0] if self.steps else "none"

    def _passed(self, right):
        if not right:
            return paramiko.AUTH_FAILED
        self.steps.pop(0)
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.steps else paramiko.AUTH_SUCCESSFUL

    def check_auth_none(self, username):
        return paramiko.AUTH_FAILED

    def check_auth_publickey(self, username, key):
        self.attempts.append("publickey")
        return self._passed(self.steps[0][0] == "publickey")

    def check_auth_password(self, username, password):
        self.attempts.append("password")
        return self._passed(self.steps[0] == ("password", password))

    def check_auth_interactive(self, username, submethods):
        self.attempts.append("keyboard-interactive")
        if self.steps[0][0] != "keyboard-interactive":
            return paramiko.AUTH_FAILED
        self.rounds = list(self.steps[0][1])
        return self._query()

    def _query(self):
        prompts = [(text, echo) for text, echo, _ in self.rounds[0]]
        return paramiko.InteractiveQuery("Site", "Two steps.", *prompts)

    def check_auth_interactive_response(self, responses):
        if responses != [right for _, _, right in self.rounds.pop(0)]:
            return paramiko.AUTH_FAILED
        return self._query() if self.rounds else self._passed(True)

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED


@pytest.fixture
def gate(sshd):
    """Start a stand-in with the host key of `sshd`, for the logins that a real sshd needs PAM for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        transports = []

        def start(*steps):
            server = Gate(*steps)

            def serve():
                sock, _ = listening.accept()
                transports.append(transport := paramiko.Transport(sock))
                server.transport = transport
                transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(sshd.host))
                transport.start_server(threading.Event(), server)

            threading.Thread(target=serve, daemon=True).start()
            port = listening.getsockname()[1]
            sshd.known_hosts.write_text(f"[127.0.0.1]:{port} {public(sshd.host)}\n")
            sshd.configure(f"Port {port}")
            return server

        yield start
        for transport in transports:
            transport.close()
            transport.join(DEADLINE)


CODE = [("Verification code: ", False, "123456")]
EMPTY = []


async def test_a_key_then_a_code(sshd, connect, gate):
    """After the key the server asks for a code; the empty round that PAM ends with is nobody's question."""
    gate(("publickey",), ("keyboard-interactive", [CODE, EMPTY]))
    user = User("123456")
    await connect(sshd, user=user)
    assert [(prompt.kind, prompt.text) for prompt in user.prompts] == [
        ("secret", "Site\nTwo steps.\nVerification code:")
    ]
    assert user.prompts[0].title == f"{sshd.me}@site"


async def test_a_password_then_a_code(sshd, connect, gate):
    """Password and code come in rounds of their own; what is typed is shown only where the server says so."""
    gate(("keyboard-interactive", [[("Password: ", False, "pw")], [("Token name: ", True, "blue")], CODE, EMPTY]))
    user = User("pw", "blue", "123456")
    await connect(sshd, user=user)
    assert [prompt.kind for prompt in user.prompts] == ["secret", "text", "secret"]


async def test_two_prompts_in_one_round(sshd, connect, gate):
    """A round may ask for several things; each is a question of its own."""
    gate(("keyboard-interactive", [[("Password: ", False, "pw"), ("Code: ", False, "1")]]))
    await connect(sshd, "pw", "1")


async def test_a_password(sshd, connect, gate):
    """A plain password is asked for when nothing else is left, again when it is wrong."""
    server = gate(("password", "right"))
    user = User("wrong", "right")
    await connect(sshd, user=user)
    assert server.attempts == ["password", "password"]
    assert {prompt.kind for prompt in user.prompts} == {"secret"}


async def test_a_wrong_code_is_asked_for_again(sshd, connect, gate):
    """A mistyped code is no reason to start over."""
    gate(("publickey",), ("keyboard-interactive", [CODE]))
    await connect(sshd, "654321", "123456")


@pytest.mark.parametrize("method", [("password", "right"), ("keyboard-interactive", [CODE])])
async def test_attempts_are_few(sshd, connect, gate, method):
    """After three wrong answers the login has failed, long before a site locks the account."""
    server = gate(method)
    error = await refused(connect, sshd, *["wrong"] * 9)
    assert server.attempts == [method[0]] * 3
    assert f"{method[0]}: refused" in error.evidence


@pytest.mark.parametrize("method", [("password", "right"), ("keyboard-interactive", [CODE])])
async def test_nobody_to_ask_for_a_secret(sshd, connect, gate, method):
    """When a secret is needed and nobody is there, that is the error, and nothing is sent."""
    gate(method)
    assert (await refused(connect, sshd)).what == "nobody is here"


async def test_an_asker_that_breaks_is_an_error(sshd, connect, gate):
    """Whatever befalls the one who asks, the login fails with its question."""
    gate(("keyboard-interactive", [CODE]))

    async def breaks(prompt):
        raise RuntimeError("no window")

    with pytest.raises(AuthenticationFailed, match="Verification code") as caught:
        await connect(sshd, user=breaks)
    assert "no window" in caught.value.evidence


async def test_a_prompt_cannot_play_tricks(sshd, connect, gate):
    """Escape sequences in what the server asks do not reach the user's terminal."""
    gate(("keyboard-interactive", [[("\x1b]0;owned\x07Code\x1b[2J: ", False, "1")]]))
    user = User("1")
    await connect(sshd, user=user)
    assert user.prompts[0].text == "Site\nTwo steps.\n]0;ownedCode[2J:"


async def test_methods_that_we_lack_are_named(sshd, connect, gate):
    """A server that wants something else is told apart from one that refuses us."""
    gate(("hostbased",))
    assert "the server takes: hostbased" in (await refused(connect, sshd)).evidence


async def test_secrets_are_forgotten(sshd, connect, gate):
    """After the login nothing of ours or paramiko's holds the password or the key."""
    gate(("publickey",), ("password", "right"))
    shell = await connect(sshd, "right")
    kept = vars(shell._transport.auth_handler)
    assert (kept["password"], kept["private_key"], kept["interactive_handler"]) == (None, None, None)


async def test_secrets_are_not_logged(sshd, connect, gate, caplog):
    """Not even the log at its most talkative holds what the user typed."""
    caplog.set_level(1, "hpcnb.site.ssh")
    gate(("keyboard-interactive", [[("Password: ", False, "hunter2")]]), ("password", "hunter3"))
    await connect(sshd, "hunter2", "hunter3")
    assert caplog.records
    assert "hunter" not in caplog.text


async def test_giving_up_while_asked(sshd, connect, gate):
    """Whoever is cancelled in front of a question takes the question back."""
    gate(("keyboard-interactive", [CODE]))
    silent = Silent()
    task = asyncio.create_task(connect(sshd, user=silent))
    await silent.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(DEADLINE):
        await silent.withdrawn.wait()


@pytest.mark.parametrize("step", [("keyboard-interactive", [CODE]), ("password", "hunter2")], ids=["code", "password"])
async def test_a_server_that_waits_no_longer(sshd, connect, gate, step):
    """A question that is left open ends with the server's patience, is taken back, and the error says what to do."""
    server = gate(step)
    silent = Silent(server.hang_up)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(AuthenticationFailed, match="did not wait for the answer any longer") as caught:
            await connect(sshd, user=silent)
        await silent.withdrawn.wait()
    assert caught.value.where == sshd.name
    assert "answer in time" in caught.value.remedy
