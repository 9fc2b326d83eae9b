"""A real JupyterHub behind a real proxy, with two users whose accounts exist for it alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest

from hpcnb.sandbox.ground import free_ports
from tests.server.jupyter import leave_out
from tests.site.account import until

DOCUMENT = Path(__file__).parents[2] / "docs" / "jupyterhub.md"
START = 60.0
FIRST = 20_000 + 2 * (os.getpid() % 20_000)
USERS = {"ada": FIRST, "bob": FIRST + 1}
"""Their uids: nobody else's on this machine, also where another checkout is tested, which would end all that runs for its users."""
WITH_USERS = """
set -e
mount --bind "$0/passwd" /etc/passwd
mount --bind "$0/group" /etc/group
# Root's home may hold the Python under test, and is nobody else's to enter: the users have another, with that alone.
exec 3<"$1"
mount -t tmpfs -o mode=755 tmpfs /root
mkdir -p "$1"
mount --no-canonicalize --bind /proc/self/fd/3 "$1"
shift
exec "$@"
"""
SITE = {"batch": "process", "walltime": "20m"}


def proxy() -> Path:
    """configurable-http-proxy, installed by npm beside the Python under test when it is missing there."""
    folder = Path(sys.prefix, "share", "configurable-http-proxy")
    program = folder / "node_modules" / ".bin" / "configurable-http-proxy"
    if not program.exists():
        npm = shutil.which("npm", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if npm is None:
            pytest.skip("apt-get install npm")
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--silent", "configurable-http-proxy@5"]
        if subprocess.run(command, cwd=folder, check=False).returncode:
            pytest.fail("npm does not install configurable-http-proxy")
    return program


class Hub:
    """A hub as the documentation has it.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)
        self.port, self._api, self._inner = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}/hub-test"
        self.token, self.password = secrets.token_hex(16), secrets.token_hex(16)
        self.homes = {name: self._account(name, uid) for name, uid in USERS.items()}
        (folder / "dask").mkdir()
        sites = {"hpcnb": {"default-site": "centre", "sites": {"centre": SITE}}}
        (folder / "dask" / "hpcnb.yaml").write_text(json.dumps(sites))
        self._configure()

    def _account(self, name: str, uid: int) -> Path:
        home = self.folder / name
        home.mkdir(mode=0o700)
        for file, line in (("passwd", f"{name}:x:{uid}:{uid}::{home}:/bin/bash"), ("group", f"{name}:x:{uid}:")):
            path = self.folder / file
            known = path.read_text() if path.exists() else Path("/etc", file).read_text()
            path.write_text(f"{known}{line}\n")
        settings = home / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
        leave_out(home / ".jupyter")
        for path in (home, *home.rglob("*")):
            os.chown(path, uid, uid)
        return home

    def _configure(self) -> None:
        (documented,) = re.findall(
            r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        own = f"""
c.JupyterHub.bind_url = {self.url!r}
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{self._inner}"
c.ConfigurableHTTPProxy.command = [{str(proxy())!r}]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{self._api}"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {self.password!r}
c.Authenticator.allowed_users = {set(USERS)!r}
c.JupyterHub.services = [{{"name": "tests", "api_token": {self.token!r}}}]
c.JupyterHub.load_roles = [
    {{"name": "tests", "services": ["tests"], "scopes": ["admin:users", "admin:servers", "tokens"]}},
]
c.JupyterHub.cleanup_servers = False
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
c.JupyterHub.db_url = "sqlite:///{self.folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{self.folder}/cookie"
c.Spawner.environment = {{"DASK_ROOT_CONFIG": "{self.folder}/dask"}}
c.Spawner.cmd = [{sys.executable!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly"]
"""
        (self.folder / "config.py").write_text(f"{documented}\n{own}")
        self._path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def __enter__(self) -> Self:
        user = ("setpriv", f"--reuid={USERS['ada']}", "--clear-groups", sys.executable, "-c", "import hpcnb.cli")
        if self._command(*user).wait():
            pytest.skip(f"other users cannot read {DOCUMENT.parents[1]}")
        self._process = self._command(sys.executable, "-m", "jupyterhub", "-f", str(self.folder / "config.py"))
        self._admin = httpx.Client(
            base_url=f"{self.url}/hub/api", headers={"Authorization": f"token {self.token}"}, timeout=START
        )
        try:
            until(self._answers, within=START)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _command(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command where the users exist."""
        with (self.folder / "hub.log").open("ab") as log:
            return subprocess.Popen(
                ["unshare", "--mount", "bash", "-c", WITH_USERS, str(self.folder), sys.base_prefix, *words],
                cwd=self.folder,
                env={"PATH": self._path, "LANG": "C.UTF-8", "HOME": "/"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log()
        with contextlib.suppress(httpx.TransportError):
            return self._admin.get("/").status_code == 200
        return False

    def __exit__(self, *exception: object) -> None:
        """End the hub, its servers, and whatever the users have left running; their files are the caller's to remove."""
        self._admin.close()
        self._process.terminate()
        self._process.wait(START)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            psutil.wait_procs(self.processes(), timeout=5)
        for uid in USERS.values():
            shutil.rmtree(f"/tmp/hpcnb-{uid}", ignore_errors=True)

    def log(self) -> str:
        """What the hub, the proxy and the users' servers have said."""
        return (self.folder / "hub.log").read_text()

    def processes(self, *names: str) -> list[psutil.Process]:
        """What runs for some of the users, by default for all; what nobody has waited for yet has ended."""
        uids = {USERS[name] for name in names or USERS}
        found = psutil.process_iter(["uids", "status"])
        return [
            p
            for p in found
            if p.info["uids"] and p.info["uids"].real in uids and p.info["status"] != psutil.STATUS_ZOMBIE
        ]

    # -- servers -------------------------------------------------------------------------------------------------------

    def start(self, *wanted: tuple[str, str]) -> None:
        """Start these servers, each given by its user and its name; returns when they answer."""
        for name, server in wanted:
            asked = self._admin.post(f"/users/{name}/servers/{server}")
            assert asked.status_code in (201, 202), (asked.text, self.log())
        try:
            until(
                lambda: all(self._server(name, server).get("ready") for name, server in wanted), within=START, every=0.3
            )
        except BaseException:
            print(self.log())  # noqa: T201 - shown on failure
            raise

    def cull(self) -> None:
        """Run the idle culler, for which everybody has been away for long, until it has stopped all servers."""
        command = [sys.executable, "-m", "jupyterhub_idle_culler", f"--url={self.url}/hub/api"]
        environ = {"PATH": self._path, "JUPYTERHUB_API_TOKEN": self.token}
        with (self.folder / "hub.log").open("ab") as log:
            culler = subprocess.Popen([*command, "--timeout=1", "--cull-every=2"], env=environ, stdout=log, stderr=log)
        try:
            until(
                lambda: not any(user["servers"] for user in self._admin.get("/users").json()), within=START, every=0.3
            )
        finally:
            culler.terminate()
            culler.wait(START)

    def _server(self, name: str, server: str) -> dict[str, object]:
        return self._admin.get(f"/users/{name}").json()["servers"].get(server, {})

    def client(self, name: str) -> httpx.Client:
        """Requests of a user, by a token of his; the addresses begin behind the hub's own."""
        given = self._admin.post(f"/users/{name}/tokens", json={}).json()
        headers = {"Authorization": f"token {given['token']}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=START)


@contextlib.contextmanager
def running_hub():
    """A hub; nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hub-", dir="/tmp"))
    try:
        with Hub(folder) as hub:
            yield hub
    finally:
        shutil.rmtree(folder)
