"""Which route is tried, when, and what is remembered of it."""

from __future__ import annotations

import pytest

from hpcnb.agent import dialling, places
from hpcnb.agent.dialling import LOYALTY, Dialler, Silent
from hpcnb.errors import ConnectionFailed
from hpcnb.link import Link, LinkRefused
from hpcnb.site.environment import HERE
from hpcnb.site.local import LocalShell
from hpcnb.site.routes import ROUTES, Goal, Route


class Ways:
    """Routes that work or do not, as the test says, and which of them were tried."""

    def __init__(self):
        self.open = set()
        self.tried = []

    def route(self, name):
        async def open_(goal):
            self.tried.append(name)
            if name not in self.open:
                raise ConnectionFailed(f"no {name}")

        return Route(open=open_, deadline=5)

    def taken(self):
        """What was tried since the last time."""
        taken, self.tried = self.tried, []
        return taken


@pytest.fixture
def ways(isolated, monkeypatch):
    ways = Ways()
    monkeypatch.setattr(dialling, "ROUTES", {name: ways.route(name) for name in ROUTES})

    async def attach(self, link, pipe):
        pass

    monkeypatch.setattr(Dialler, "_attach", attach)
    return ways


@pytest.fixture
async def goal(tmp_path):
    shell = LocalShell()
    yield Goal(shell=shell, environment=HERE, zip_path="", path=str(tmp_path), host="127.0.0.1", port=1)
    await shell.close()


@pytest.fixture
def dial(goal):
    """Dial once: ``dial(dialler)`` gives the route, or what was said of each."""
    link = Link("x", b"secret", initiator=True)

    async def dial(dialler):
        try:
            return await dialler.dial(link, goal)
        except ConnectionFailed as exc:
            return exc.what

    return dial


async def test_the_routes_are_tried_in_order(ways, dial):
    """Direct comes first, mailbox last; the first that works is taken, and why the others failed is told if none does."""
    dialler = Dialler("a", "auto", None)
    said = await dial(dialler)
    assert ways.taken() == ["direct", "exec", "srun", "reverse", "mailbox"]
    assert said == (
        "the pilot cannot be reached: direct: no direct; exec: no exec; srun: no srun; reverse: no reverse; mailbox: no mailbox"
    )
    ways.open = {"srun", "reverse"}
    assert await dial(dialler) == "srun"
    assert ways.taken() == ["direct", "exec", "srun"]


async def test_what_worked_is_remembered_for_the_site(ways, dial):
    """The next cluster of the site begins with it, one of another site does not; if it fails the others are tried again."""
    ways.open = {"reverse"}
    await dial(Dialler("a", "auto", None))
    ways.taken()
    assert await dial(Dialler("a", "auto", None)) == "reverse"
    assert ways.taken() == ["reverse"]
    await dial(Dialler("b", "auto", None))
    assert ways.taken()[0] == "direct"
    ways.open = {"exec"}
    assert await dial(Dialler("a", "auto", None)) == "exec"
    assert ways.taken() == ["reverse", "direct", "exec"]
    assert dialling.remembered("a") == "exec"
    assert places.routes().stat().st_mode & 0o777 == 0o600


async def test_the_slowest_is_not_remembered(ways, dial):
    """Where only the mailbox worked, a new cluster tries the better routes first."""
    ways.open = {"mailbox"}
    dialler = Dialler("a", "auto", None)
    assert await dial(dialler) == "mailbox"
    assert dialling.remembered("a") == ""
    ways.taken()
    await dial(dialler)  # but this one heals at once
    assert ways.taken() == ["mailbox"]


async def test_a_forced_route_is_tried_alone(ways, dial):
    """What the configuration says is neither replaced nor remembered."""
    ways.open = {"direct", "exec"}
    assert await dial(Dialler("a", "srun", None)) == "the pilot cannot be reached: srun: no srun"
    assert ways.taken() == ["srun"]
    assert await dial(Dialler("a", "exec", None)) == "exec"
    assert dialling.remembered("a") == ""


async def test_a_passing_fault_does_not_change_the_route(ways, dial):
    """A route that has carried the link is tried alone for a while before a worse one takes its place."""
    ways.open = {"direct"}
    dialler = Dialler("a", "auto", None)
    assert await dial(dialler) == "direct"
    ways.open = {"exec"}
    ways.taken()
    for _ in range(LOYALTY):
        assert "exec" not in await dial(dialler)
    assert ways.taken() == ["direct"] * LOYALTY
    assert await dial(dialler) == "exec"


async def test_a_better_route_takes_over(ways, dial, goal):
    """A link that lives is given the best route that works, which is remembered; never a worse one, nor another than the one wished."""
    link = Link("x", b"secret", initiator=True)
    ways.open = {"reverse", "mailbox"}
    dialler = Dialler("a", "auto", None)
    await dial(dialler)
    ways.taken()
    assert await dialler.climb(link, goal) == ""
    assert ways.taken() == ["direct", "exec", "srun"]
    ways.open = {"exec", "srun", "reverse", "mailbox"}
    assert await dialler.climb(link, goal) == "exec"
    assert dialling.remembered("a") == "exec"
    ways.taken()
    assert await dialler.climb(link, goal) == ""
    assert ways.taken() == ["direct"]
    ways.open = {"direct"}
    assert await dialler.climb(link, goal) == "direct"
    ways.taken()
    assert await dialler.climb(link, goal) == ""
    assert ways.taken() == []

    ways.open = set(ROUTES)
    forced = Dialler("a", "mailbox", None)
    await dial(forced)
    ways.taken()
    assert await forced.climb(link, goal) == ""
    assert ways.taken() == []


async def test_a_silent_login_node_is_no_fault_of_a_route(ways, dial, goal, monkeypatch):
    """When the login node does not answer, no other route is tried."""
    monkeypatch.setattr(dialling, "ANSWER", 0.1)

    async def lost(path, **options):
        raise ConnectionFailed("the SSH connection is lost")

    monkeypatch.setattr(goal.shell, "read", lost)
    with pytest.raises(Silent, match="the SSH connection is lost"):
        await Dialler("a", "auto", None).dial(Link("x", b"secret", initiator=True), goal)
    assert ways.taken() == ["direct"]


async def test_a_refusal_is_final(ways, dial, monkeypatch):
    """A gateway that refuses us would refuse us by any route."""

    async def refuse(self, link, pipe):
        raise LinkRefused("another secret")

    monkeypatch.setattr(Dialler, "_attach", refuse)
    ways.open = {"direct", "exec"}
    with pytest.raises(LinkRefused):
        await dial(Dialler("a", "auto", None))
    assert ways.taken() == ["direct"]


async def test_a_failure_without_words_is_one(ways, dial, monkeypatch):
    """An error that says nothing is told by its name."""

    async def fail(self, link, pipe):
        raise ConnectionResetError

    monkeypatch.setattr(Dialler, "_attach", fail)
    ways.open = {"exec"}
    assert await dial(Dialler("a", "exec", None)) == "the pilot cannot be reached: exec: ConnectionResetError"


@pytest.mark.parametrize("text", ["", "[]", '{"a": "bicycle"}', "\0"])
async def test_a_broken_memory_is_no_memory(ways, dial, text):
    """What is not understood is as if it were not there."""
    places.routes().write_text(text)
    ways.open = {"direct"}
    assert await dial(Dialler("a", "auto", None)) == "direct"
    assert dialling.remembered("a") == "direct"
