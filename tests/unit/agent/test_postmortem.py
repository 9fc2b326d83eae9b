"""How a batch job died, from whatever is known of it: Slurm's own words are those of a real Slurm 22.05."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.agent.postmortem import REQUEUED, Evidence, Peak, more_memory, of_worker, verdict
from hpcnb.model import Ending, JobState, JobStatus, Reason, Resources

GIB = 2**30
ASKED = Resources(walltime=3600)
FAILED = Ending(reason=Reason.FAILED, job_id="7", node="n1", message="the batch job failed")
KILLED = Ending(reason=Reason.FAILED, job_id="7", node="n1", signal=9, message="the batch job was killed by signal 9")
CANCELLED = Ending(reason=Reason.CANCELLED, job_id="7", node="n1", signal=15, message="the batch job was cancelled")
COMPLETED = Ending(reason=Reason.COMPLETED, job_id="7", exit_code=0)
TIMEOUT = Ending(reason=Reason.TIMEOUT, job_id="7", message="the walltime of the batch job ran out")
NODE_FAIL = Ending(reason=Reason.NODE_FAIL, job_id="7", node="n1", message="a node of the batch job failed")
NO_MEMORY = Ending(reason=Reason.OUT_OF_MEMORY, job_id="7", node="n1", message="the batch job used too much memory")
PREEMPTED = Ending(reason=Reason.PREEMPTED, job_id="7", message="the batch job had to make room")
SAID = Ending(reason=Reason.FAILED, message="the scheduler process was killed by SIGSEGV", tail="its log")
TOLD = Ending(reason=Reason.CANCELLED, message="told to end")
PEAK = Peak(used=int(9.8 * GIB), limit=8 * GIB, node="n2", largest="sessions")

due = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22T12:02:12 DUE TO {} ***\n".format
EXCEEDED = """\
slurmstepd-n1: error: StepId=7.batch exceeded memory limit (429953024 > 104857600), being killed
slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22T12:01:59 ***
slurmstepd-n1: error: Exceeded job memory limit
"""
OOM = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch. Some of the step tasks have been OOM Killed.\n"
LIE = "printed by a task: slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT now DUE TO TIME LIMIT ***\n"

TABLE = [
    # what is known → reason, what the sentence says, what the suggestion says
    ("a time-out", {"told": TIMEOUT}, Reason.TIMEOUT, "walltime", "--walltime 2h"),
    ("only its log", {"told": FAILED, "log": due("TIME LIMIT")}, Reason.TIMEOUT, "walltime", "--walltime 2h"),
    ("preempted", {"told": PREEMPTED}, Reason.PREEMPTED, "room", "not preempted"),
    (
        "only its log",
        {"told": CANCELLED, "log": due("PREEMPTION")},
        Reason.PREEMPTED,
        "more important",
        "not preempted",
    ),
    ("a node", {"told": NODE_FAIL}, Reason.NODE_FAIL, "node of the batch job failed", "--option=--exclude=n1"),
    (
        "a node, by its log",
        {"told": CANCELLED, "log": due("NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS")},
        Reason.NODE_FAIL,
        "node of the batch job failed",
        "--exclude=n1",
    ),
    ("requeued", {"told": CANCELLED, "log": due("JOB REQUEUE")}, Reason.CANCELLED, REQUEUED, "Start the cluster again"),
    ("requeued, claimed", {"told": COMPLETED, "log": due("JOB REQUEUE")}, Reason.CANCELLED, REQUEUED, "again"),
    (
        "requeued, run again",
        {"told": COMPLETED, "log": "mkdir: cannot create directory '/h/runs/1/claim': File exists\n", "said": TOLD},
        Reason.CANCELLED,
        REQUEUED,
        "again",
    ),
    ("memory, told", {"told": NO_MEMORY}, Reason.OUT_OF_MEMORY, "too much memory", "--memory-per-node"),
    (
        "memory, told and measured",
        {"told": NO_MEMORY, "peaks": (PEAK,)},
        Reason.OUT_OF_MEMORY,
        "too much memory: 9.8 of 8 GiB on n2, most of it by the kernels of cells",
        "Ask for 12 GiB (--memory-per-node 12GiB): the peak was 9.8 of 8 GiB.",
    ),
    (
        "memory, by the step's daemon",
        {"told": KILLED, "log": EXCEEDED},
        Reason.OUT_OF_MEMORY,
        "more memory than it had asked for: 410 of 100 MiB on n1",
        "Ask for 493 MiB (--memory-per-node 493MiB)",
    ),
    ("memory, by the kernel", {"told": FAILED, "log": OOM}, Reason.OUT_OF_MEMORY, "more memory", "--memory-per-node"),
    ("killed near its limit", {"told": KILLED, "peaks": (PEAK,)}, Reason.FAILED, "signal 9: 9.8 of 8 GiB", "12GiB"),
    (
        "killed far from it",
        {"told": KILLED, "peaks": (Peak(used=1, limit=GIB),)},
        Reason.FAILED,
        "signal 9",
        "%hpc logs",
    ),
    ("an earlier kill", {"told": CANCELLED, "log": OOM}, Reason.CANCELLED, "not recorded", "unless you meant it"),
    ("by ada", {"told": CANCELLED, "canceller": "ada"}, Reason.CANCELLED, "cancelled by ada", "unless you meant it"),
    ("by whom?", {"told": CANCELLED}, Reason.CANCELLED, "by whom is not recorded", "Start the cluster again"),
    ("the pilot's words", {"told": FAILED, "said": SAID}, Reason.FAILED, "killed by SIGSEGV", "%hpc logs"),
    ("told to end", {"told": FAILED, "said": TOLD}, Reason.CANCELLED, "told to end", "unless you meant it"),
    ("the pilot knows less", {"told": TIMEOUT, "said": TOLD}, Reason.TIMEOUT, "walltime", "--walltime"),
    ("a signal", {"told": Ending(reason=Reason.FAILED, signal=6)}, Reason.FAILED, "killed by signal 6", "%hpc logs"),
    ("a status", {"told": Ending(reason=Reason.FAILED, exit_code=3)}, Reason.FAILED, "exit status 3", "%hpc logs"),
    ("nothing", {"told": Ending(reason=Reason.FAILED)}, Reason.FAILED, "the batch job failed", "%hpc logs"),
    ("a lie", {"told": FAILED, "log": LIE}, Reason.FAILED, "the batch job failed", "%hpc logs"),
    ("well", {"told": COMPLETED}, Reason.COMPLETED, "", ""),
]


@pytest.mark.parametrize(
    ("known", "reason", "words", "suggestion"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_each_cause_is_found(known, reason, words, suggestion):
    """Line 6: from each kind of evidence the right cause, its figures, and one suggestion."""
    ending = verdict(Evidence(**{"resources": ASKED} | known))
    assert ending.reason is reason
    assert words in ending.message
    assert suggestion in ending.suggestion
    assert (ending.suggestion.count("→"), "\n" in ending.message + ending.suggestion) == (0, False)


def test_the_evidence_stays():
    """Job, node, exit code, signal and the log's end are what they were."""
    ending = verdict(Evidence(told=KILLED, log=EXCEEDED, resources=ASKED))
    assert (ending.job_id, ending.node, ending.signal, ending.tail) == ("7", "n1", 9, EXCEEDED.strip())
    assert verdict(Evidence(told=FAILED, said=SAID, log="x", resources=ASKED)).tail == "its log"


def test_how_much_memory_to_ask_for():
    """More than the peak, and more than what was not enough."""
    assert more_memory(PEAK) == "Ask for 12 GiB (--memory-per-node 12GiB): the peak was 9.8 of 8 GiB."
    assert "Ask for 20 GiB" in more_memory(Peak(used=16 * GIB, limit=2 * GIB))
    assert "Ask for 3 GiB" in more_memory(Peak(used=2 * GIB, limit=2 * GIB))


@given(
    st.builds(
        Evidence,
        told=st.builds(
            Ending, reason=st.sampled_from(Reason), signal=st.none() | st.integers(1, 64), message=st.text()
        ),
        said=st.none() | st.builds(Ending, reason=st.sampled_from(Reason), message=st.text()),
        log=st.lists(st.sampled_from([due("TIME LIMIT"), due("A WHIM"), EXCEEDED, OOM, LIE, "\x00\x1b[2J"])).map(
            "".join
        ),
        peaks=st.lists(st.builds(Peak, used=st.integers(0, 2**60), limit=st.integers(0, 2**60))).map(tuple),
        canceller=st.text(),
        resources=st.just(ASKED),
    )
)
def test_whatever_is_known(evidence):
    """No evidence, however odd, is too much; every end but the wanted one has a suggestion."""
    ending = verdict(evidence)
    assert bool(ending.suggestion) is (ending.reason is not Reason.COMPLETED)


JOBS = [
    JobStatus(job_id="7", state=JobState.RUNNING, nodes=("n-1",)),
    JobStatus(job_id="8", state=JobState.RUNNING, nodes=("n-2",)),
]


def worker(**fields):
    """What a supervisor says of a worker."""
    return {"event": "worker-exit", "worker": "worker-0-n-1-2", "how": "died", "tail": "", **fields}


def test_a_worker_without_memory():
    """A worker that outgrew its memory says how much there was, and asks for more for each, or for the node."""
    lost = of_worker(worker(code=-9, memory=[int(9.8 * GIB), 8 * GIB, "worker"]), JOBS)
    assert (lost.reason, lost.job_id, lost.node, lost.signal) == (Reason.OUT_OF_MEMORY, "7", "n-1", 9)
    assert lost.suggestion == "Ask for 12 GiB (--memory-per-worker 12GiB): the peak was 9.8 of 8 GiB."
    assert "--memory-per-node" in of_worker(worker(code=-9, memory=[GIB, GIB, "node"]), JOBS).suggestion


def test_a_worker_that_dies():
    """A worker that died otherwise says where its log is; an older supervisor, which tells no code, is understood."""
    lost = of_worker(worker(code=3), JOBS)
    assert (lost.reason, lost.exit_code, lost.suggestion) == (
        Reason.FAILED,
        3,
        "`%hpc logs worker-0-n-1-2` shows what it has written.",
    )
    assert of_worker(worker(), JOBS).reason is Reason.COMPLETED


def test_a_worker_of_a_further_job():
    """One of which only the scheduler has heard how it died has its own job, and no figures that nobody knows."""
    lost = of_worker(worker(worker="worker-3-n-2-0", code=None), JOBS)
    assert (lost.reason, lost.job_id, lost.node) == (Reason.FAILED, "8", "n-2")
    assert (lost.exit_code, lost.signal, lost.suggestion) == (None, None, "")
    assert of_worker(worker(worker="alien", code=1), []).job_id == ""
