"""A pilot in this process whose nodes are a few lines of Python, with a run directory as the agent writes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import sys
from pathlib import Path

from hpcnb.agent.connection import client_context
from hpcnb.link import Link, Stream
from hpcnb.model import ClusterSpec, Resources
from hpcnb.pilot import lead
from hpcnb.pilot.lead import Pilot, lines
from hpcnb.pilot.run import Run
from hpcnb.site import bootstrap
from hpcnb.site.authority import Authority, Role
from hpcnb.site.environment import HERE
from hpcnb.site.local import LocalShell
from tests.isolation import DEADLINE, until

SECRET = "5ec7e7" * 10
SAY = """
import json, sys
def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)
def stay():
    sys.stdin.read()
"""
"""What the nodes' lines may use: `say` an event, `stay` until told to end."""


class LonePilot:
    """A pilot and a way to speak to it.

    Parameters
    ----------
    folder : Path
        Its run directory.
    nodes : str
        What the nodes do.
    **wishes
        Fields of the cluster's spec, and `index`.
    """

    def __init__(self, folder: Path, nodes: str, *, index: int = 0, **wishes: object) -> None:
        self.folder = folder
        self.nodes = SAY + nodes
        spec = ClusterSpec(site="local", name="lone", resources=Resources(), **wishes)
        self.run = Run(
            id="c0ffee", token=secrets.token_hex(16), path=str(folder), spec=spec, index=index, directory=str(folder)
        )
        self.authority = Authority.create(self.run.id)
        self.pilot: Pilot
        self.ending: asyncio.Task[object]
        self._stack = contextlib.AsyncExitStack()

    async def prepare(self) -> LonePilot:
        """Write the run directory."""
        files = bootstrap.run_files(self.run, HERE, zip_path="/x.zip", authority=self.authority, secret=SECRET)
        shell = LocalShell()
        await bootstrap.write_run(shell, self.run, files, site="local")
        await shell.close()
        return self

    async def start(self, monkeypatch, *, attached: int = 0) -> LonePilot:
        """Start it in this very process; with clients `attached` its idle time does not begin before a test is ready."""
        await self.prepare()
        monkeypatch.setattr(lead, "node_command", lambda run: [sys.executable, "-c", self.nodes])
        self.pilot = Pilot(self.run)
        self.pilot._attached = attached
        self.ending = asyncio.create_task(self.pilot.lead())
        if self.run.leads:
            await until(lambda: self.ending.done() or self.run.file("pilot.json").exists())
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Where its gateway listens."""
        return tuple(json.loads(self.run.file("pilot.json").read_text())["gateway"])

    def tls(self, role: Role = Role.AGENT, authority: Authority | None = None) -> ssl.SSLContext:
        """What one who joins shows."""
        return client_context(self.authority.certificate, (authority or self.authority).issue(role, lifetime=60))

    async def join(self, *, secret: str = SECRET, tls: ssl.SSLContext | None = None) -> Link:
        """A link to it, as the agent makes it."""
        link = Link(self.run.id, bytes.fromhex(secret), initiator=True)
        self._stack.push_async_callback(link.close)
        reader, writer = await asyncio.open_connection(
            *self.address, ssl=tls or self.tls(), server_hostname=Role.GATEWAY.server_name
        )
        await link.attach(reader, writer)
        return link

    async def control(self) -> Control:
        """Its control stream."""
        return Control((await self.join()).open("control"))

    async def close(self) -> None:
        """End it."""
        await self._stack.aclose()
        self.ending.cancel()
        await asyncio.gather(self.ending, return_exceptions=True)


class Control:
    """The agent's end of a control stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lines = lines(stream)

    async def tell(self, **wish: object) -> None:
        """Say something to the pilot."""
        await self._stream.write(json.dumps(wish).encode() + b"\n")

    async def hear(self, event: str = "") -> dict[str, object]:
        """The next event, of that name if one is given."""
        async with asyncio.timeout(DEADLINE):
            async for said in self._lines:
                if event in ("", said["event"]):
                    return said
        raise EOFError(f"the stream has ended without {event!r}")
