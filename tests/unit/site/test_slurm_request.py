"""Rendering of `sbatch`'s arguments."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.errors import SubmissionRejected
from hpcnb.model import Resources
from hpcnb.site.batch import JobRequest
from hpcnb.site.slurm_request import OURS, WORDS, sbatch_argv

PLAIN = JobRequest(
    token="0123456789abcdef0123456789abcdef",
    name="fit",
    script="/home/ada/.hpcnb/runs/1/job.sh",
    directory="/home/ada/.hpcnb/runs/1",
    log="/home/ada/.hpcnb/runs/1/job.log",
    resources=Resources(),
)

FIXED = [
    "sbatch",
    "--parsable",
    "--export=ALL",
    "--propagate=NONE",
    "--no-requeue",
    "--job-name=fit",
    "--comment=0123456789abcdef0123456789abcdef",
    "--chdir=/home/ada/.hpcnb/runs/1",
    "--output=/home/ada/.hpcnb/runs/1/job.log",
]


def asking(**resources) -> JobRequest:
    return replace(PLAIN, resources=Resources(**resources))


def test_the_least_request():
    """A request that asks for nothing special leaves everything else to Slurm's defaults."""
    assert sbatch_argv(PLAIN) == [*FIXED, "--nodes=1", "--ntasks-per-node=1", "--time=60", PLAIN.script]


def test_the_fullest_request():
    """Every word of a request has its option; memory and walltime are rounded up."""
    request = asking(
        nodes=2,
        walltime=61,
        cores_per_node=32,
        memory_per_node=10**9,
        gpus_per_node=4,
        partition="debug",
        account="m1",
        qos="high",
        options={"--constraint": "haswell|knl", "--exclusive": "", "--mail-user": "ada; rm -rf ~ $(id) 'x"},
    )
    assert sbatch_argv(request) == [
        *FIXED,
        "--nodes=2",
        "--ntasks-per-node=1",
        "--time=2",
        "--cpus-per-task=32",
        "--mem=954M",
        "--gpus-per-node=4",
        "--partition=debug",
        "--account=m1",
        "--qos=high",
        "--constraint=haswell|knl",
        "--exclusive",
        "--mail-user=ada; rm -rf ~ $(id) 'x",
        PLAIN.script,
    ]


def test_a_percent_sign_in_the_log_is_no_pattern():
    """Slurm would put the job's id for %j, so each % is doubled in --output and only there."""
    request = replace(PLAIN, log="/a/100%j/x.log", directory="/a/100%j")
    argv = sbatch_argv(request)
    assert "--output=/a/100%%j/x.log" in argv
    assert "--chdir=/a/100%j" in argv


@pytest.mark.parametrize("name", [*OURS, *WORDS, "--out", "--arr", "--w", "--part", "--mem"])
def test_options_of_ours_are_refused(name):
    """Neither an option that hpcnb sets nor an abbreviation of one gets through."""
    with pytest.raises(SubmissionRejected, match=r"set by hpcnb|word of its own"):
        sbatch_argv(asking(memory_per_node=2**30, options={name: "x"}))


@pytest.mark.parametrize("name", ["--mem", "--exclude", "--begin", "--gpus", "--nodelist", "--mem-per-cpu"])
def test_other_options_pass(name):
    """An option that nothing else sets is passed on as one argument."""
    assert f"{name}=0" in sbatch_argv(asking(options={name: "0"}))


@pytest.mark.parametrize("name", ["", "-p", "--", "--Wrap", "--a b", "--x\n", "wrap", "--wrap=rm", "---wrap", "--é"])
def test_what_is_no_option_is_refused(name):
    """Only --name, in full, is an option."""
    with pytest.raises(SubmissionRejected, match="not an option"):
        sbatch_argv(asking(options={name: "x"}))


@pytest.mark.parametrize(
    "request_",
    [
        asking(options={"--constraint": "a\n#SBATCH --wrap=rm"}),
        asking(options={"--constraint": "a\0b"}),
        asking(partition="a\nb"),
        asking(account="\x1b[2J"),
        asking(qos="\ud800"),
        asking(nodes=0),
        asking(walltime=0),
        asking(cores_per_node=0),
        asking(memory_per_node=-1),
        asking(gpus_per_node=-1),
        replace(PLAIN, name=""),
        replace(PLAIN, name="a/../b"),
        replace(PLAIN, name="a" * 65),
        replace(PLAIN, name="fit\n"),
        replace(PLAIN, token="1"),
        replace(PLAIN, token=PLAIN.token.upper()),
        replace(PLAIN, log="job.log"),
        replace(PLAIN, log="/a\\b"),
        replace(PLAIN, directory="/a\nb"),
        replace(PLAIN, script="--wrap=x"),
    ],
)
def test_nonsense_is_refused(request_):
    """A value that Slurm would misread is refused before anything is run, with the site's name."""
    with pytest.raises(SubmissionRejected, match="octopus"):
        sbatch_argv(request_, site="octopus")


TEXT = st.text(max_size=30)
OPTION_NAMES = st.one_of(
    TEXT, st.from_regex(r"--[a-z-]{0,12}"), st.sampled_from([*OURS, *WORDS, "--constraint", "--hold"])
)
REQUESTS = st.builds(
    JobRequest,
    token=st.one_of(TEXT, st.just(PLAIN.token)),
    name=st.one_of(TEXT, st.just("fit")),
    script=st.one_of(TEXT, TEXT.map("/{}".format)),
    directory=st.one_of(TEXT, TEXT.map("/{}".format)),
    log=st.one_of(TEXT, TEXT.map("/{}".format)),
    resources=st.builds(
        Resources,
        nodes=st.integers(-1, 9),
        walltime=st.integers(-1, 10**9),
        partition=TEXT,
        account=TEXT,
        options=st.dictionaries(OPTION_NAMES, TEXT, max_size=3),
    ),
)


@given(REQUESTS)
def test_hostile_values_stay_values(request_):
    """Whatever is in a request, it is refused, or every argument is an option that was meant, in one piece."""
    try:
        argv = sbatch_argv(request_)
    except SubmissionRejected:
        return
    assert argv[0] == "sbatch"
    assert argv[-1] == request_.script
    assert argv[-1].startswith("/")
    names = [word.partition("=")[0] for word in argv[1:-1]]
    assert all(name.startswith("--") for name in names)
    assert len(set(names)) == len(names)
    assert not {"--wrap", "--array", "--dependency", "--error"} & set(names)
    assert not any(ord(char) < 32 for word in argv for char in word)
