"""What a site wants of its user: a login that needs him, a certificate that expires."""

from __future__ import annotations

import asyncio
import time

import pytest

from hpcnb import config
from hpcnb.agent import sites
from hpcnb.agent.calls import Calls
from hpcnb.agent.client import nobody_to_ask
from hpcnb.agent.sites import Site
from hpcnb.errors import AuthenticationFailed
from hpcnb.site.local import LocalShell
from hpcnb.site.shell import Prompt
from tests.isolation import until

CODE = Prompt(kind="secret", title="ada@octopus", text="Verification code:")


class Certified(LocalShell):
    """A connection that was opened by a certificate."""

    ends: float | None = None

    @property
    def login_ends(self):
        """As the test says."""
        return self.ends


class Gated(Site):
    """A site that asks for a code."""

    async def _reach(self, ask):
        if await ask(CODE) != "123456":
            raise AuthenticationFailed("octopus did not let ada in")
        return Certified()


@pytest.fixture
async def site(isolated):
    """One that keeps what it noticed."""
    noticed = []
    site = Gated(config.load().site("local"), lambda site: noticed.append(dict(site.notices)))
    site.noticed = noticed
    yield site
    await site.close()


async def answer(prompt):
    """Know the code."""
    return "123456"


async def test_a_login_that_needs_the_user_waits_for_him(site):
    """There is one notice, not a loop of attempts; whoever logs in takes it away."""
    for _ in range(3):
        with pytest.raises(AuthenticationFailed):
            await site.shell.run(["true"])
    text = "needs you (ada@octopus: Verification code:): `%hpc login local` connects again"
    assert site.noticed == [{"login": text}]
    await site.connect(answer)
    assert site.noticed[1:] == [{}]


async def test_an_expiring_certificate_is_announced(site, monkeypatch):
    """Some time before the certificate of a login expires, and not earlier, the user is told; once, until it is renewed."""
    monkeypatch.setattr(Certified, "ends", time.time() + sites.EXPIRY_WARNING + 0.2)
    await site.connect(answer)
    assert site.notices == {}
    await until(lambda: site.notices)
    assert site.notices["certificate"].startswith("the certificate for local expires at ")
    await site.shell.close()
    monkeypatch.setattr(Certified, "ends", None)
    await site.connect(answer)
    assert [*map(len, site.noticed)] == [1, 0]


async def test_what_a_site_wants_stands_at_each_of_its_clusters(isolated, monkeypatch):
    """The clusters of a site show its notices while they live; `login` asks the user, and takes them away."""
    monkeypatch.setattr("hpcnb.agent.calls.Site", Gated)
    heard = asyncio.Queue()
    calls = Calls(heard.put_nowait)
    spec = config.cluster_spec(config.load().site("local"), name="fit", directory="/")

    async def call(name, ask=nobody_to_ask, **arguments):
        return await calls.call(name, arguments, client=object(), ask=ask)

    with pytest.raises(AuthenticationFailed):
        await call("create", id="0" * 16, spec=spec.to_json())
    said = [heard.get_nowait() for _ in range(heard.qsize())]
    assert [status.notices for status in said if status.notices] == [{"login": said[1].notices["login"]}]
    assert said[-1].state == "ended"
    assert said[-1].notices == {}
    with pytest.raises(AuthenticationFailed):
        await call("login", site="local")
    await call("login", answer, site="")
    await calls.leave()
