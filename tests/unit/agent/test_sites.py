"""What a site wants of its user: a login that needs him, a certificate that expires."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from dataclasses import replace

import pytest

from hpcnb import config
from hpcnb.agent import record, sites
from hpcnb.agent.calls import Calls
from hpcnb.agent.client import nobody_to_ask
from hpcnb.agent.clusters import LiveCluster
from hpcnb.agent.sites import Site
from hpcnb.errors import AuthenticationFailed, EnvironmentMismatch
from hpcnb.model import ClusterSpec, JobState, JobStatus, Resources, State
from hpcnb.site import environment
from hpcnb.site.local import LocalShell
from hpcnb.site.shell import Prompt
from hpcnb.site.slurm import Slurm
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
    monkeypatch.setattr(Certified, "ends", time.time() + sites.EXPIRY_WARNING + 1.0)
    await site.connect(answer)
    assert site.notices == {}
    await until(lambda: site.notices)
    assert site.notices["certificate"].startswith("the certificate for local expires at ")
    await site.shell.close()
    monkeypatch.setattr(Certified, "ends", None)
    await site.connect(answer)
    assert [*map(len, site.noticed)] == [1, 0]


async def test_the_batch_system_is_asked_whatever_happens(site, monkeypatch):
    """If what asks it ends while a job is watched, in whichever way, it begins anew; else nobody would hear of the job's end."""
    monkeypatch.setattr(sites, "SLOWEST", 0.05)
    heard, ways = [], [asyncio.CancelledError(), MemoryError("no room")]

    async def answers(job_ids):
        if ways:
            raise ways.pop()
        return {job_id: JobStatus(job_id=job_id, state=JobState.ENDED) for job_id in job_ids}

    monkeypatch.setattr(site, "_answers", answers)
    site.watch("7", heard.append)
    await until(lambda: heard)
    assert [status.job_id for status in heard] == ["7"]
    await asyncio.wait([site._asker])
    assert not ways


class Instant(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to whatever comes next."""

    now = 0.0

    def time(self):
        """As if all had waited."""
        return self.now

    def _run_once(self):
        if self._scheduled and not self._ready:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


class Counted:
    """A batch system at Slurm's pace, in which all jobs wait; it keeps the times at which it was asked."""

    pace = Slurm.pace

    def __init__(self):
        self.asked = []

    async def list(self, job_ids):
        """All wait, for ever other reasons."""
        self.asked.append((asyncio.get_running_loop().time(), len(job_ids)))
        reason = ("Priority", "Resources")[len(self.asked) % 2]
        return {i: JobStatus(job_id=i, state=JobState.PENDING, reason=reason) for i in job_ids}


def test_how_often_slurm_is_asked(isolated):
    """However many jobs wait, they are asked for together: every 5 s in the first minute, every 30 s later."""

    async def wait():
        site = Site(config.load().site("local"))
        site.batch = counted = Counted()
        for number in range(10):
            site.watch(str(number), lambda status: None)
            await asyncio.sleep(1)
        await asyncio.sleep(290)
        quiet = len(counted.asked)
        site.stir()
        await asyncio.sleep(20)
        before = len(counted.asked)
        site.hurry()
        await asyncio.sleep(20)
        await site.close()
        return counted.asked, quiet, before

    with contextlib.closing(Instant()) as loop:
        asked, quiet, before = loop.run_until_complete(wait())
    times = [at for at, _ in asked]
    gaps = [round(later - at) for at, later in itertools.pairwise(times)]
    assert gaps[:13] == [5] * 13
    assert set(gaps[14 : quiet - 1]) == {30}
    assert asked[2][1] == asked[-1][1] == 10
    assert gaps[quiet : before - 1] == [5, 5, 5]
    assert gaps[before : before + 4] == [1] * 4
    assert gaps[-1] == 5


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


async def test_a_cluster_whose_site_left_the_configuration_is_not_forgotten(isolated):
    """It is shown with the reason, and followed as soon as the configuration knows its site again."""
    spec = ClusterSpec(site="octopus", name="fit", resources=Resources())
    ended = replace(record.new("1" * 16, spec).status, state=State.ENDED, detail="closed")
    record.save(replace(record.new("1" * 16, spec), status=ended))
    calls = Calls(lambda status: None)
    calls.resume()

    async def listed():
        return await calls.call("list", {}, client=object(), ask=nobody_to_ask)

    for _ in range(2):
        assert [status["detail"] for status in await listed()] == ["it cannot be followed: there is no site 'octopus'"]
    isolated.configure("hpcnb: {sites: {octopus: {batch: process}}}")
    assert [status["detail"] for status in await listed()] == ["closed"]
    await calls.leave()


async def test_clusters_that_have_ended_are_not_kept_for_ever(isolated, monkeypatch):
    """An agent that lives for months remembers the last of them."""
    monkeypatch.setattr("hpcnb.agent.calls.Site", Gated)
    calls = Calls(lambda status: None)
    spec = config.cluster_spec(config.load().site("local"), name="fit", directory="/").to_json()
    for number in range(record.KEPT + 5):
        with pytest.raises(AuthenticationFailed):
            await calls.call("create", {"id": f"{number:016x}", "spec": spec}, client=object(), ask=nobody_to_ask)
    found = await calls.call("list", {}, client=object(), ask=nobody_to_ask)
    assert [int(status["id"], 16) for status in found] == [*range(4, record.KEPT + 5)]
    await calls.leave()


async def test_a_python_is_looked_at_again_when_another_client_asks(isolated, monkeypatch):
    """Who upgrades both ends is not refused for what was there before; and an answer of an hour ago is no wrong clock."""
    looks = []

    async def counted(*args, **options):
        looks.append(await environment.probe(*args, **options))
        return looks[-1]

    monkeypatch.setattr(sites, "probe", counted)
    site = Site(config.load().site("local"))
    ours = environment.versions()
    spec = ClusterSpec(site="local", name="fit", resources=Resources(), client=ours)
    older = replace(spec, client=replace(ours, packages=ours.packages | {"dask": "2020.1.0"}))
    await site.open(spec, nobody_to_ask)
    now = time.time() + 3600
    with monkeypatch.context() as later:
        later.setattr(environment.time, "time", lambda: now)
        await site.open(spec, nobody_to_ask)
    assert (len(looks), site.warnings) == (1, [])
    with pytest.raises(EnvironmentMismatch):
        await site.open(older, nobody_to_ask)
    await site.open(spec, nobody_to_ask)
    assert len(looks) == 2
    await site.close()


async def test_a_login_reaches_the_site_as_its_clusters_know_it(isolated):
    """An edited entry is another site; it is the one that waits for the user which gets its connection."""
    calls = Calls(lambda status: None)
    waits = Gated(config.load().site("local"), lambda site: None)
    with pytest.raises(AuthenticationFailed):
        await waits.shell.run(["true"])
    kept = record.new("0" * 16, ClusterSpec(site="local", name="fit", resources=Resources()))
    calls._clusters["0" * 16] = LiveCluster(kept, waits, lambda status: None)
    await calls.call("login", {"site": "local"}, client=object(), ask=answer)
    assert (waits.notices, calls._sites) == ({}, {})
    calls._clusters.clear()
    await waits.close()


async def test_who_edits_an_entry_leaves_no_connection_behind(isolated):
    """The site as it was before has no connection any more, unless a cluster runs there."""
    calls = Calls(lambda status: None)
    before = []
    for walltime in ("1h", "2h", "3h"):
        isolated.configure(f"hpcnb: {{sites: {{octopus: {{batch: process, walltime: {walltime}}}}}}}")
        await calls.call("login", {"site": "octopus"}, client=object(), ask=answer)
        before.append(calls._sites["octopus"])
        if walltime == "2h":
            kept = record.new("0" * 16, ClusterSpec(site="octopus", name="fit", resources=Resources()))
            calls._clusters["0" * 16] = LiveCluster(kept, before[-1], lambda status: None)
    await until(lambda: not calls._tasks)
    assert [site.shell.alive for site in before] == [False, True, True]
    calls._clusters.clear()
    for site in before:
        await site.close()
