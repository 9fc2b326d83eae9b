"""The examination of a site: each verdict with its words, what is skipped and why, deadlines, and that it can be ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from dataclasses import replace

import pytest

from hpcnb import config
from hpcnb.agent import checks
from hpcnb.agent.checks import Case
from hpcnb.agent.client import nobody_to_ask
from hpcnb.agent.doctor import CHECKS, examine
from hpcnb.agent.sites import Site
from hpcnb.config import SiteConfig, cluster_spec
from hpcnb.errors import AuthenticationFailed, ConnectionFailed, SiteError, SubmissionRejected
from hpcnb.site.batch import BatchUnknown, Limits
from hpcnb.site.environment import probe, versions
from hpcnb.site.finding import Verdict
from hpcnb.site.local import LocalShell
from hpcnb.site.shell import Completed, Prompt
from hpcnb.site.slurm_partitions import Partition
from hpcnb.site.tcp import Forbidden

OK, NOTE, FAILED, SKIPPED = Verdict
CODE = Prompt(kind="secret", title="ada@octopus", text="Verification code:")


class Gated(Site):
    """This machine, as a site that asks for a code."""

    async def _reach(self, ask):
        if await ask(CODE) != "123456":
            raise AuthenticationFailed("octopus did not let ada in", where="octopus", remedy="Type the right code.")
        return LocalShell()


class Answering(LocalShell):
    """This machine, but one command in it is answered by the test."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer

    async def run(self, argv, *, stdin=b"", timeout=30.0):
        """Answer, or run it."""
        return await super().run(argv, stdin=stdin, timeout=timeout) if self.answer is None else self.answer


class Told:
    """A batch system that answers as the test says: what is an error is raised."""

    kind = "slurm"

    def __init__(self, *, version="Slurm 24.11.5", limits=None, starts=None):
        self._version, self._limits, self._starts = version, limits or Limits(), starts

    async def version(self):
        """As the test says."""
        if isinstance(self._version, Exception):
            raise self._version
        return self._version

    async def limits(self):
        """As the test says."""
        return self._limits

    async def room(self, resources):
        """Nothing is known."""
        return None, None

    async def starts(self, request):
        """As the test says."""
        if isinstance(self._starts, Exception):
            raise self._starts
        return self._starts


@pytest.fixture
async def make(isolated):
    """Make a site of an entry; all are closed afterwards."""
    async with contextlib.AsyncExitStack() as stack:

        def make(kind=Site, **entry):
            entry = {"name": "octopus", "batch": "process", "walltime": 3600} | entry
            site = kind(SiteConfig(**entry))
            stack.push_async_callback(site.close)
            return site

        yield make


@pytest.fixture
def case(make):
    """A site that is this machine, whose Python has answered; what it is given counts."""

    async def case(shell=None, batch=None, **entry):
        site = make(**entry)
        if shell:
            site.shell = shell
        await site.connect(nobody_to_ask) if shell is None else None
        site.batch = batch or site.batch
        found = await probe(LocalShell(), site.environment(spec(site)), site=site.name, home=site.config.home)
        return Case(site=site, spec=spec(site), ask=nobody_to_ask, connected=True, found=found)

    return case


def spec(site, **client):
    """What is asked of a site by default."""
    ours = versions()
    ours = replace(ours, packages=ours.packages | client)
    return replace(cluster_spec(site.config), python=site.config.python, client=ours)


async def look(site, ask=nobody_to_ask, **client):
    """All findings, by name."""
    return {finding.name: finding async for finding in examine(site, spec(site, **client), ask)}


# -- as a whole -----------------------------------------------------------------------------------------------------


async def test_this_machine_will_do(isolated):
    """`local` is examined in a few lines, none of which speaks of SSH, and nothing is left but what a cluster leaves."""
    site = Site(config.load().site("local"))
    found = await look(site)
    await site.close()
    assert [*found] == ["entry", "login", "login shell", "Python", "home", "batch system", "default job"]
    assert {finding.verdict for finding in found.values()} == {OK}
    assert found["Python"].text.endswith("all as here")
    assert str(isolated.home) in found["home"].text
    assert f"on {len(os.sched_getaffinity(0))} core" in found["batch system"].text
    assert found["default job"].text.endswith("would start at once")
    assert all(finding.seconds >= 0 for finding in found.values())
    assert [path.name for path in isolated.home.iterdir()] == ["code"]


async def test_a_refused_login_skips_the_rest(make):
    """What depends on a login that failed is skipped, and that is said; the evidence is the login's own."""
    found = await look(make(Gated), ask=_answer("wrong"))
    assert found.pop("entry").verdict is OK
    refused = found.pop("login")
    assert (refused.verdict, refused.remedy) == (FAILED, "Type the right code.")
    assert {finding.verdict for finding in found.values()} == {SKIPPED}
    assert {finding.text for finding in found.values()} == {"not looked at: there is no connection"}


def _answer(text, after=0.0):
    async def answer(prompt):
        await asyncio.sleep(after)
        return text

    return answer


async def test_a_question_stops_the_clock(make):
    """Who is asked for a code may take longer than the deadline; that is not counted as the login's time."""
    quick = [replace(check, deadline=0.4) if check.name == "login" else check for check in CHECKS[:2]]
    site = make(Gated)
    found = [one async for one in examine(site, spec(site), _answer("123456", after=1.0), all_checks=quick)]
    assert [(one.name, one.verdict) for one in found] == [("entry", OK), ("login", OK)]
    assert found[1].seconds < 0.4


async def test_a_look_that_hangs_ends_by_its_deadline(case):
    """It has failed then, with what to do; what comes after it is looked at."""

    async def hang(case):
        await asyncio.Event().wait()

    one = await case()
    hung = [replace(CHECKS[0], look=hang, deadline=0.1), CHECKS[0]]
    found = [finding async for finding in examine(one.site, one.spec, nobody_to_ask, all_checks=hung)]
    assert [finding.verdict for finding in found] == [FAILED, OK]
    assert found[0].text == "no answer within 0 s"
    assert found[0].remedy


async def test_a_fault_of_ours_is_said_to_be_one(case):
    """A look that fails as none should is a failure that names the log, and the others go on."""

    async def fail(case):
        raise ZeroDivisionError("by zero")

    one = await case()
    faulty = [replace(CHECKS[0], look=fail), CHECKS[0]]
    found = [finding async for finding in examine(one.site, one.spec, nobody_to_ask, all_checks=faulty)]
    assert [finding.verdict for finding in found] == [FAILED, OK]
    assert "agent.log" in found[0].remedy


async def test_it_can_be_given_up(case):
    """Who needs no more ends the look that goes on."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(case):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    one = await case()

    async def all_of_it():
        slow = [replace(CHECKS[0], look=hang)]
        return [finding async for finding in examine(one.site, one.spec, nobody_to_ask, all_checks=slow)]

    looking = asyncio.create_task(all_of_it())
    await begun.wait()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert ended.is_set()


# -- entry, login ---------------------------------------------------------------------------------------------------


async def test_a_wrong_ssh_configuration_is_the_entrys_fault(make):
    """Nobody can be reached by an entry that names a file which is not there."""
    found = await look(make(host="octopus", ssh_config="/nonexistent/config"))
    assert found["entry"].verdict is FAILED
    assert "/nonexistent/config" in found["entry"].text
    assert found["login"].text == "not looked at: the configuration does not lead there"
    assert {finding.verdict for finding in [*found.values()][1:]} == {SKIPPED}


async def test_the_entry_says_whom_it_means(make, tmp_path):
    """An alias of the SSH configuration is resolved, with those in between."""
    (tmp_path / "config").write_text(
        "Host octopus\n  HostName login.example.org\n  User ada\n  Port 2222\n  ProxyJump gate.example.org\n"
        "Host gate.example.org\n  User ada\n"
    )
    site = make(host="octopus", ssh_config=str(tmp_path / "config"), batch="slurm", nodes=2, partition="debug")
    text = (await checks.entry(Case(site=site, spec=spec(site), ask=nobody_to_ask))).text
    assert text == "ada@login.example.org port 2222, through gate.example.org, Slurm, 2 nodes for 1h in debug"


# -- shell ----------------------------------------------------------------------------------------------------------


async def test_a_chatty_login_shell_is_noted(case):
    """What it prints by itself is shown, and who may not bear it is named."""
    well = await LocalShell().run(["sh", "-c", checks._SHELL, "sh", checks._ODD])
    chatty = replace(well, chatter=b"Welcome to octopus\nMaintenance on Monday\n")
    found = await checks.login_shell(await case(Answering(chatty)))
    assert found.verdict is NOTE
    assert "prints 2 lines by itself" in found.text
    assert found.evidence == "Welcome to octopus\nMaintenance on Monday"
    assert "scp" in found.remedy


@pytest.mark.parametrize("out", [b"", b"something else\n", b"a\037b\037c\037d\037"])
async def test_a_shell_that_runs_something_else_has_failed(case, out):
    """What comes back must be what was sent, letter by letter."""
    refusing = Completed(returncode=7, stdout=out, stderr=b"Accounts are closed.\n")
    with pytest.raises(SiteError, match="exit status 7") as caught:
        await checks.login_shell(await case(Answering(refusing)))
    assert caught.value.evidence == "Accounts are closed."


# -- Python ---------------------------------------------------------------------------------------------------------


async def test_a_missing_python_leaves_the_batch_system(make):
    """It is named with what to set; what needs it is skipped, and what does not is looked at."""
    found = await look(make(python="/nonexistent/python"))
    assert found["Python"].verdict is FAILED
    assert "Set python: of site 'octopus'" in found["Python"].remedy
    assert found["home"].text == "not looked at: the Python there has not answered"
    assert [found[name].verdict for name in ("home", "batch system", "default job")] == [SKIPPED, OK, OK]


async def test_what_up_would_refuse_has_failed(make):
    """Another release of distributed, with both sides' versions as evidence; the home is looked at all the same."""
    found = await look(make(), distributed="2099.1.0")
    assert found["Python"].verdict is FAILED
    assert "2099.1.0 here" in found["Python"].text
    assert [line.partition(": ")[0] for line in found["Python"].evidence.splitlines()] == ["there", "here"]
    assert "pip install" in found["Python"].remedy
    assert found["home"].verdict is OK


async def test_what_up_would_take_is_noted(make):
    """Another release of cloudpickle, with the command that makes both the same."""
    found = (await look(make(), cloudpickle="9.9"))["Python"]
    assert found.verdict is NOTE
    assert "and 9.9 here" in found.text
    assert "cloudpickle==9.9" in found.remedy


async def test_what_values_are_made_of_is_compared_by_its_major_release(case, make):
    """A package that a value needs is noted where it is missing or another; a patch release is not, nor what is not here."""
    one = await case()
    there = one.found.packages
    assert there["numpy"]
    assert (await look(make(), numpy=f"{there['numpy'].partition('.')[0]}.999"))["Python"].verdict is OK
    assert (await look(make(), numpy=""))["Python"].verdict is OK
    found = (await look(make(), numpy="9.0.1"))["Python"]
    assert found.verdict is NOTE
    assert f"numpy is {there['numpy']} there and 9.0.1 here" in found.text
    assert found.remedy.endswith("-m pip install numpy==9.0.1")


def test_a_package_that_is_missing_there():
    """It is named only if it is here."""
    assert checks._differ({}, {"pandas": "2.0", "scipy": ""}) == ["pandas"]


@pytest.mark.parametrize(
    ("ahead", "verdict", "words"),
    [
        ((-0.2, 0.4), OK, "as here, within 0.4 s"),
        ((3.1, 3.6), OK, "3.1 s ahead of"),
        ((-4.0, -3.5), OK, "3.5 s behind"),
        ((300.0, 301.0), NOTE, "300 s ahead of"),
        ((-301.0, -300.0), NOTE, "300 s behind"),
    ],
)
async def test_clocks(case, ahead, verdict, words):
    """What can be told of the difference is told; what `up` warns of is a note."""
    one = await case()
    one.ahead = ahead
    found = await checks.clock(one)
    assert found.verdict is verdict
    assert words in found.text


async def test_a_clock_that_is_days_behind_has_failed(case):
    """Certificates that are made here would not be valid there."""
    one = await case()
    one.ahead = (-2 * 86400.0, -2 * 86400.0 + 1)
    with pytest.raises(SiteError, match="not valid there yet"):
        await checks.clock(one)


# -- home -----------------------------------------------------------------------------------------------------------


async def test_a_home_open_to_others_has_failed(make, isolated):
    """With the command that mends it."""
    isolated.home.chmod(0o777)
    found = (await look(make()))["home"]
    assert (found.verdict, "others can write" in found.text) == (FAILED, True)
    assert f"chmod go-w {isolated.home}" in found.remedy


async def test_a_home_that_cannot_be_written_has_failed(make):
    """With the key that names another."""
    found = (await look(make(home="/proc/hpcnb")))["home"]
    assert found.verdict is FAILED
    assert "cannot write /proc/hpcnb" in found.text
    assert "set home: of site 'octopus'" in found.remedy


DF = "mode 700\n/dev/sda1 1000 900 {} 90% /home\n/dev/sda1 1000 900 {} 90% /home\n"


class Scarce(LocalShell):
    """This machine with as much room as the test says."""

    def __init__(self, said):
        super().__init__()
        self._said = said

    async def run(self, argv, **kwargs):
        """Answer the question for room."""
        if checks._SPACE in argv:
            return Completed(returncode=0, stdout=self._said.encode(), stderr=b"")
        return await super().run(argv, **kwargs)


@pytest.mark.parametrize(
    ("said", "verdict", "words"),
    [
        (DF.format(1 << 21, 20_000), OK, "mode 700, 2.0 GiB free, 20,000 inodes free"),
        (DF.format(1 << 10, 20_000), NOTE, "0.0 GiB free"),
        (DF.format(1 << 21, 20), NOTE, "20 inodes free"),
        (DF.format(-5, 20_000), NOTE, "0.0 GiB free"),
        ("mode 700\nnfs:/a b 10 5 4194304 9% /a b\nnfs:/a b 0 0 0 - /a b\n", OK, "mode 700, 4.0 GiB free;"),
        ("", OK, "free space is not told"),
    ],
)
async def test_room(case, said, verdict, words):
    """What `df` says is told, whatever the names in it; that there is little is worth a note."""
    found = await checks.home(await case(Scarce(said)))
    assert found.verdict is verdict
    assert words in found.text


async def test_room_by_the_real_df(case, isolated):
    """It is what the system says."""
    mode, free, inodes = await checks._space(LocalShell(), str(isolated.home))
    there = shutil.disk_usage(isolated.home)
    assert mode == "700"
    assert abs(free - there.free) < 1 << 30
    known = os.statvfs(isolated.home).f_favail
    assert (inodes is None) == (known == 0)


# -- batch system ---------------------------------------------------------------------------------------------------


async def test_without_a_batch_system_the_job_is_not_looked_at(case):
    """That there is none is said, with what to set."""
    one = await case(batch=Told(version=SubmissionRejected("there is no sbatch", remedy="Set batch: process.")))
    both = [replace(check, far=False) for check in CHECKS if check.name in ("batch system", "default job")]
    found = [finding async for finding in examine(one.site, one.spec, nobody_to_ask, all_checks=[*CHECKS[:2], *both])]
    assert (found[2].verdict, found[2].text, found[2].remedy) == (FAILED, "there is no sbatch", "Set batch: process.")
    assert found[3].text == "not looked at: the batch system has not answered"


async def test_a_silent_slurm_has_failed(case):
    """What its command said is the evidence."""
    with pytest.raises(SiteError, match="no answer") as caught:
        await checks.batch(await case(batch=Told(version=BatchUnknown("Unable to contact slurm controller"))))
    assert caught.value.evidence == "Unable to contact slurm controller"


async def test_what_there_is_to_choose_from(case):
    """The default first, and not all of a hundred partitions."""
    known = [Partition(name=f"p{i}", default=i == 50, up=True, walltime=None, nodes=2, cores=8) for i in range(100)]
    limits = Limits(partitions=tuple(known), accounts=("m1", "m2"), default_account="m2")
    found = await checks.batch(await case(batch=Told(limits=limits)))
    assert found.verdict is OK
    assert found.text.startswith("Slurm 24.11.5 answers; partitions: p50 (2 nodes, 8 cores each, default), p0 (")
    assert found.text.endswith(" and 95 more; your accounts: m2 (default), m1")
    assert "no partitions; it names no accounts" in (await checks.batch(await case(batch=Told()))).text


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        (None, "1 node for 1h would be taken; when it would start is not said"),
        (-5, "1 node for 1h would start at once"),
        (630, ", in 10m"),
        (86400 * 3 + 30, ", in 3d"),
    ],
)
async def test_when_the_default_job_would_start(case, wait, words):
    """By the time of here, however far the site's clock is off."""
    one = await case(batch=Told(starts=None if wait is None else time.time() + wait + 7200))
    one.ahead = (7200.0, 7200.0)
    found = await checks.job(one)
    assert found.verdict is OK
    assert found.text.endswith(words)


async def test_a_default_job_that_would_be_refused_has_failed(make):
    """By the words of the batch system, with what to change."""
    found = (await look(make(partition="debug")))["default job"]
    assert found.verdict is FAILED
    assert "partition" in found.text
    assert found.remedy


# -- routes ---------------------------------------------------------------------------------------------------------


class Way(LocalShell):
    """A login node that lets us do something, or not."""

    def __init__(self, *, direct=True, session=True, alive=True):
        super().__init__()
        self._may, self._lives = (direct, session), alive

    @property
    def alive(self):
        """As the test says."""
        return self._lives

    async def dial(self, host, port):
        """Reach nothing, or be forbidden."""
        if not self._may[0]:
            raise Forbidden("forbids TCP forwarding")
        raise ConnectionFailed("nothing listens")

    async def pipe(self, argv):
        """Start it, or be refused."""
        if not self._may[1]:
            raise ConnectionFailed("allows one session only")
        return await super().pipe(argv)


@pytest.mark.parametrize(
    ("way", "link", "verdict", "words"),
    [
        (Way(), "auto", OK, "the nodes are tried by the first cluster"),
        (Way(direct=False), "auto", NOTE, "relay on the login node (exec)"),
        (Way(session=False), "auto", NOTE, "is made by forwarding (direct)"),
        (Way(direct=False, session=False), "auto", NOTE, "slow (mailbox)"),
        (Way(direct=False), "exec", NOTE, "(exec)"),
        (
            Way(direct=False),
            "direct",
            FAILED,
            "forbids TCP forwarding (AllowTcpForwarding, PermitOpen), and link: direct",
        ),
        (Way(session=False), "reverse", FAILED, "one session at a time (MaxSessions), and link: reverse needs it"),
        (Way(alive=False), "auto", FAILED, "nothing listens"),
    ],
)
async def test_routes(case, way, link, verdict, words):
    """What sshd forbids is told with the route that is taken then; a route that is forced and forbidden is a failure."""
    one = await case(way, link=link)
    only = [replace(CHECKS[-1], far=False, lacks=None)]
    (found,) = [finding async for finding in examine(one.site, one.spec, nobody_to_ask, all_checks=only)]
    assert found.verdict is verdict
    assert words in found.text
    await way.close()
