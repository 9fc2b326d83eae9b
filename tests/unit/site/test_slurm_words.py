"""What hpcnb makes of partitions, refusals and reasons to wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcnb.model import JobState, JobStatus, Resources
from hpcnb.site.slurm_answers import SEPARATOR
from hpcnb.site.slurm_partitions import impossible, partitions
from hpcnb.site.slurm_pending import _CAUSES, cause, explain_pending, place
from hpcnb.site.slurm_refusals import Refusal, complaint, refusal, remedy

GOLDEN = Path(__file__).parent / "golden"

SINFO = """PARTITION|AVAIL|TIMELIMIT|NODES|JOB_SIZE|CPUS
main*|up|1-00:00:00|2|1-infinite|4
small|up|1:00:00|1|1|4
down|down|infinite|9|1-infinite|64
mixed|up|infinite|2|1-3|4
mixed|up|infinite|2|1-3|8
odd|up|7-00:00:00|5|1-infinite|4+
""".replace("|", SEPARATOR)


def test_partitions():
    """A recorded sinfo answer gives each partition with its limits; nodes of two kinds are one partition."""
    known = {p.name: p for p in partitions(SINFO)}
    assert (known["main"].default, known["main"].walltime, known["main"].nodes, known["main"].cores) == (
        True,
        86400,
        2,
        4,
    )
    assert known["small"].nodes == 1
    assert (known["mixed"].nodes, known["mixed"].cores, known["mixed"].walltime) == (3, 8, None)
    assert known["odd"].cores is None
    assert str(known["main"]) == "main (2 nodes, 4 cores each, up to 1d, default)"
    assert str(known["down"]) == "down (9 nodes, 64 cores each, down)"


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (Resources(walltime=86401), "a walltime of 1d1s is above the limit of partition main, 1d"),
        (Resources(partition="small", walltime=7200), "a walltime of 2h is above the limit of partition small, 1h"),
        (Resources(nodes=3), "3 nodes are more than partition main gives one job, 2"),
        (
            Resources(nodes=4, partition="mixed,small"),
            "4 nodes are more than partition small or mixed gives one job, 3",
        ),
        (Resources(cores_per_node=5), "5 cores per node are more than partition main gives one job, 4"),
    ],
)
def test_what_can_never_start(resources, words):
    """A request above the limits of all its partitions is named before it is submitted."""
    what, _ = impossible(resources, partitions(SINFO))
    assert what == words


def test_where_it_could_start():
    """The remedy names the partitions that would allow it, of those that are up."""
    _, advice = impossible(Resources(nodes=3), partitions(SINFO))
    assert advice == (
        "Ask for fewer nodes=, or for a partition that allows it: "
        "mixed (3 nodes, 8 cores each), odd (5 nodes, up to 7d)."
    )


@pytest.mark.parametrize(
    "resources",
    [
        Resources(),
        Resources(nodes=2, walltime=86400, cores_per_node=4),
        Resources(nodes=9, qos="big"),
        Resources(nodes=9, partition="hidden"),
        Resources(nodes=9, partition="main,hidden"),
        Resources(partition="odd", cores_per_node=99),
    ],
)
def test_what_slurm_shall_judge(resources):
    """Where a limit is not certain, Slurm decides."""
    assert impossible(resources, partitions(SINFO)) == ("", "")


@pytest.mark.parametrize(
    ("stderr", "meaning"),
    [
        (
            "sbatch: error: invalid partition specified: gpuu\nsbatch: error: Batch job submission failed: Invalid partition name specified",
            Refusal.PARTITION,
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            Refusal.ACCOUNT,
        ),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", Refusal.QOS),
        ("sbatch: error: Memory specification can not be satisfied", Refusal.NODES),
        ("sbatch: error: Invalid generic resource (gres) specification", Refusal.GPUS),
        ("sbatch: unrecognized option '--foo=1'", Refusal.OPTION),
        ("sbatch: error: Batch job submission failed: Invalid feature specification", Refusal.OPTION),
        (
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            Refusal.POLICY,
        ),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", Refusal.UNHEARD),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            Refusal.UNHEARD,
        ),
        ("sbatch: fatal: Could not establish a configuration source", Refusal.LOST),
        ("sbatch: error: You shall not pass", Refusal.UNCLEAR),
        ("", Refusal.UNCLEAR),
    ],
)
def test_refusals(stderr, meaning):
    """What sbatch says tells a no from a lost answer."""
    assert refusal(1, stderr) is meaning


@pytest.mark.parametrize(("status", "meaning"), [(127, Refusal.MISSING), (124, Refusal.UNHEARD), (-9, Refusal.UNHEARD)])
def test_refusals_by_status(status, meaning):
    """Without words the exit status tells."""
    assert refusal(status, "") is meaning


def test_complaint():
    """The first line is the one that names the thing; Slurm's own preamble is left out."""
    assert (
        complaint("sbatch: error: invalid partition specified: gpuu\nsbatch: error: Batch")
        == "invalid partition specified: gpuu"
    )
    assert complaint("") == "no reason given"


@pytest.mark.parametrize("why", [why for why in Refusal if why is not Refusal.UNHEARD])
def test_every_no_has_a_remedy(why):
    """Whatever was refused, the user is told what to do next."""
    assert remedy(why, site="octopus", known="").endswith(".")


PENDING = [line.split(": ", 1) for line in (GOLDEN / "pending.txt").read_text().splitlines()]
"""Every reason in the documentation and the sources of Slurm 22 to 25, and what we make of it."""


@pytest.mark.parametrize(("reason", "sentence"), PENDING, ids=[reason for reason, _ in PENDING])
def test_each_documented_reason_has_a_plain_sentence(reason, sentence):
    """Each reason becomes a cause and, where there is one, a remedy; Slurm's own word follows."""
    assert cause(reason) == sentence
    assert sentence.endswith(f"({reason})" if len(reason) <= 60 else "…)")
    assert not sentence.startswith("Slurm says")


def test_the_table_is_whole():
    """None of the families is left out, and every cause of ours is some reason's."""
    assert len(PENDING) > 200
    for kind in ("", "Minutes", "RunMinutes"):
        for owner in ("Assoc", "QOS"):
            for good in ("BB", "Billing", "Energy", "GRES", "License", "Unknown"):
                assert f"{owner}Grp{good}{kind}" in dict(PENDING)
    assert not [word for word in _CAUSES if not any(reason.startswith(word) for reason, _ in PENDING)]


@pytest.mark.parametrize("reason", ["FooLimit", "ünknöwn"])
def test_an_unknown_reason_is_quoted(reason):
    """What we do not know is passed on as Slurm says it."""
    assert cause(reason) == f"Slurm says: {reason}"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"position": 13, "smaller": 3}, "12 ahead in debug, 3 of them smaller"),
        ({"position": 13}, "12 ahead in debug"),
        ({"position": 3, "smaller": 2}, "2 ahead in debug, all of them smaller"),
        ({"position": 2, "smaller": 1, "partition": "debug,long"}, "1 ahead in debug or long, 1 of them smaller"),
        ({"position": 1}, "next in debug"),
        ({"position": 12_346, "partition": ""}, "12,345 ahead"),
        ({}, ""),
        ({"hidden": True}, "the site hides other users' jobs, so its place in the queue is not known"),
    ],
)
def test_the_place_comes_first(fields, words):
    """Who is ahead leads the sentence; a place that the site hides is said to be hidden."""
    job = JobStatus(job_id="1", state=JobState.PENDING, reason="Licenses", **{"partition": "debug"} | fields)
    assert place(job) == words
    waits = "waits for a licence that others use (Licenses)"
    assert explain_pending(job) == (f"{words}; {waits}" if words else waits)


def test_no_reason_yet():
    """A job that was just submitted waits for Slurm's first look."""
    assert cause("") == "waits for Slurm to look at it"
