"""Reading of what Slurm's commands print; the recorded answers are those of Slurm 22.05 and of its documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.model import JobState, Reason
from hpcnb.site import slurm_answers as answers

HEADING = "JOBID|STATE|REASON|NODELIST|TIME_LEFT|START_TIME|PARTITION|PRIORITY"

QUEUE = f"""{HEADING}
5|CANCELLED|PartitionConfig||10:00|1795310649|main|4294901755
17|FAILED|JobLaunchFailure|n1|9:58|1795310754|main|4294901740
11|PENDING|Resources||1:00|1795311021|main|4294901751
12|PENDING|Priority||2:00|1795311060|main|4294901750
14|PENDING|JobHeldUser||10:00|N/A|main|0
26|PENDING|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions||5:00|N/A|small|7
31|PENDING|ReqNodeNotAvail, UnavailableNodes:n1||5:00|N/A|small|6
10|RUNNING|None|n[1-2]|1-00:04:58|1795310721|main|4294901752
13|COMPLETING|None|n[1-2]|4:35|1795310721|main|4294901752
"""

ENDED = """\
JobId=17 JobName=wrap UserId=ada(1000) GroupId=ada(1000) MCS_label=N/A Priority=4294901740 Nice=0 Account=(null) \
QOS=(null) JobState=FAILED Reason=JobLaunchFailure Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 \
ExitCode=0:9 RunTime=00:00:02 Partition=main ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] BatchHost=n2 \
Command=/x/JobState=COMPLETED WorkDir=/x Comment=ExitCode=0:0
JobId=19 JobName=wrap JobState=FAILED Reason=NonZeroExitCode ExitCode=7:0 ReqNodeList=(null) NodeList=n2 BatchHost=n2
JobId=21 JobName=wrap JobState=FAILED Reason=JobLaunchFailure ExitCode=0:53 NodeList=n2 BatchHost=n2
JobId=4 JobName=wrap JobState=FAILED Reason=BadConstraints ExitCode=0:1 NodeList=(null)
JobId=5 JobName=wrap JobState=CANCELLED Reason=PartitionConfig ExitCode=0:0 NodeList=(null)
JobId=20 JobName=wrap JobState=COMPLETED Reason=None ExitCode=0:0 NodeList=n2 BatchHost=n2
JobId=30 JobName=wrap JobState=RUNNING Reason=None ExitCode=0:0 NodeList=n2 BatchHost=n2
"""

HISTORY = """\
40|CANCELLED by 1000|0:15|n[1-2]
41|TIMEOUT|0:0|n3
42|OUT_OF_MEMORY|0:125|n3
43|NODE_FAIL|1:0|n[3-4]
44|PREEMPTED|0:0|n3
45|RUNNING|0:0|n3
46|CANCELLED|0:0|None assigned
"""


def wire(text: str) -> str:
    return text.replace("|", answers.SEPARATOR)


@pytest.mark.parametrize(
    ("text", "job_id"),
    [("29\n", "29"), ("29;cluster\n", "29"), ("Welcome 2 octopus\n29\n", "29"), ("", None), ("Welcome\n", None)],
)
def test_job_id(text, job_id):
    """The id is the last line that sbatch prints, whatever a chatty shell says before it."""
    assert answers.submitted(text) == job_id


def test_queue():
    """A recorded squeue answer gives state, reason, nodes, time left and estimated start of each job."""
    jobs = {job_id: job.status for job_id, job in answers.jobs(wire(QUEUE)).items()}
    assert (jobs["10"].state, jobs["10"].nodes, jobs["10"].time_left) == (JobState.RUNNING, ("n1", "n2"), 86698)
    assert (jobs["12"].state, jobs["12"].reason, jobs["12"].time_left) == (JobState.PENDING, "Priority", None)
    assert (jobs["12"].estimated_start, jobs["14"].estimated_start) == (1795311060.0, None)
    assert jobs["13"].state is JobState.RUNNING
    assert jobs["5"].ending.reason is Reason.CANCELLED
    assert jobs["17"].ending.node == "n1"
    assert jobs["26"].reason.startswith("Nodes required")


def test_noise_before_the_heading():
    """What a login shell prints before the answer is no part of it."""
    assert set(answers.jobs("Welcome!\n\n" + wire(QUEUE))) == set(answers.jobs(wire(QUEUE)))


@pytest.mark.parametrize("text", ["", "\n", "Welcome!", QUEUE, "<html>", "\0\xff"])
def test_an_answer_without_its_heading_is_none(text):
    """An empty answer does not say that there are no jobs; only an empty table does."""
    for read in (answers.jobs, lambda t: answers.carriers(t, "x")):
        with pytest.raises(ValueError, match="without its heading"):
            read(text)
    assert answers.jobs(wire(HEADING) + "\n") == {}


@pytest.mark.parametrize("row", ["10|RUNNING", "10|RUNNING|None|n[1|1|1|main|1", "10|RUNNING|None|n1|1|1|main|high"])
def test_a_row_that_makes_no_sense(row):
    """Half a row, or one with a value that cannot be, spoils the answer."""
    with pytest.raises(ValueError, match=r"row of|list of nodes|int"):
        answers.jobs(wire(f"{HEADING}\n{row}\n"))


@given(st.text(alphabet="JOBID|STATERNx[]0-9,\n \x1f", max_size=200))
def test_garbage_raises_nothing_but_value_error(text):
    """Any text is an answer or a ValueError, for every reader."""
    readers = (answers.jobs, answers.records, answers.history, lambda t: answers.carriers(t, "x"))
    for read in readers:
        try:
            read(text)
        except ValueError:
            pass


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", JobState.PENDING),
        ("CONFIGURING", JobState.PENDING),
        ("REQUEUED", JobState.PENDING),
        ("REQUEUE_HOLD", JobState.PENDING),
        ("SPECIAL_EXIT", JobState.PENDING),
        ("SUSPENDED", JobState.RUNNING),
        ("COMPLETING", JobState.RUNNING),
        ("STAGE_OUT", JobState.RUNNING),
        ("BOOT_FAIL", JobState.ENDED),
        ("DEADLINE", JobState.ENDED),
        ("A_NEW_ONE", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)
def test_states(word, state):
    """Every state has its place in three words; one that we do not know is unknown, not an error."""
    status = answers.jobs(wire(f"{HEADING}\n1|{word}|None||1:00|N/A|main|1\n"))["1"].status
    assert (status.state, status.raw) == (state, word)
    assert (status.ending is not None) == (state is JobState.ENDED)


def test_how_jobs_ended():
    """The controller's records give reason, exit status, signal and node; what users wrote cannot pose as them."""
    found = answers.records(ENDED)
    assert set(found) == {"17", "19", "21", "4", "5", "20"}
    told = {i: (e.reason, e.exit_code, e.signal, e.node) for i, e in found.items()}
    assert told["17"] == (Reason.FAILED, None, 9, "n2")
    assert told["19"] == (Reason.FAILED, 7, None, "n2")
    assert told["20"] == (Reason.COMPLETED, 0, None, "n2")
    assert told["5"] == (Reason.CANCELLED, 0, None, "")
    assert "signal 9" in found["17"].message
    assert "memory" in found["17"].message
    assert found["19"].message == "the batch job ended with exit status 7"
    assert found["21"].message == "node n2 could not open the batch job's log or enter its directory"
    assert found["21"].signal is None
    assert found["4"].message == "the batch job failed: BadConstraints"


def test_history():
    """What the accounting remembers reads the same; a job that it takes for running says nothing."""
    found = answers.history("Welcome|\n" + HISTORY)
    assert {i: s.ending.reason for i, s in found.items()} == {
        "40": Reason.CANCELLED,
        "41": Reason.TIMEOUT,
        "42": Reason.OUT_OF_MEMORY,
        "43": Reason.NODE_FAIL,
        "44": Reason.PREEMPTED,
        "46": Reason.CANCELLED,
    }
    assert found["43"].ending.node == ""
    assert "n[3-4]" in found["43"].ending.message
    assert found["46"].nodes == ()


def test_carriers():
    """A job is found by its comment or, where the site writes its own there, by the path of its script."""
    text = wire(
        "JOBID|COMMENT|COMMAND\n1|abc|/x\n2|site's own|/runs/abc/job.sh\n3|(null)|/y\n4_[1-3]|abc|\nodd\nabc|abc\n"
    )
    assert answers.carriers(text, "abc") == ["1", "2"]


def test_positions():
    """The place in the queue counts those of higher priority in the same partitions; a held job has none."""
    jobs = list(answers.jobs(wire(QUEUE)).values())
    queue = wire(
        "JOBID|PRIORITY|PARTITION\n9|8|main\n8|8|main\n100|8|main\n11|7|main,long\n12|9|long\n14|0|main\n31|1|small\n"
    )
    assert answers.positions(queue, jobs) == {"11": 4, "31": 1}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("(null)", ()),
        ("n1", ("n1",)),
        ("n[1-3,7]", ("n1", "n2", "n3", "n7")),
        ("n[008-010]", ("n008", "n009", "n010")),
        ("a,b[1-2]c,d", ("a", "b1c", "b2c", "d")),
        ("r[1-2]n[1,3]", ("r1n1", "r1n3", "r2n1", "r2n3")),
        ("gpu-[01-02]-x,login", ("gpu-01-x", "gpu-02-x", "login")),
    ],
)
def test_node_lists(text, names):
    """Slurm's short form of a list of nodes gives every name, zeros kept."""
    assert answers.expand_nodes(text) == names


@pytest.mark.parametrize(
    "text", ["n[", "n]", "n[1-]", "n[3-1]", "n[1-9999999999]", "n[1-99999][1-99999]", ",", "n[[1]]"]
)
def test_what_is_no_node_list(text):
    """Nonsense, and more nodes than can be, is refused instead of expanded."""
    with pytest.raises(ValueError, match="nodes"):
        answers.expand_nodes(text)


@given(st.integers(0, 10**7))
def test_seconds_reads_slurms_form(duration):
    """A duration as Slurm prints it is read back."""
    days, rest = divmod(duration, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    assert answers.seconds(f"{days}-{clock}" if days else clock) == duration


@pytest.mark.parametrize("word", ["UNLIMITED", "NOT_SET", "INVALID", "infinite", "n/a", ""])
def test_seconds_of_words(word):
    """What is no duration is none."""
    assert answers.seconds(word) is None
