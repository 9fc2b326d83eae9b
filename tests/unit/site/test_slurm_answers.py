"""Reading of what Slurm's commands print; the recorded answers are those of Slurm 22.05 and of its documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.model import JobState, JobStatus, Reason
from hpcnb.site import slurm_answers as answers

HEADING = "JOBID|STATE|REASON|NODELIST|TIME_LEFT|START_TIME|PARTITION|PRIORITY|CPUS"

QUEUE = f"""{HEADING}
5|CANCELLED|PartitionConfig||10:00|1795310649|main|4294901755|4
17|FAILED|JobLaunchFailure|n1|9:58|1795310754|main|4294901740|4
11|PENDING|Resources||1:00|1795311021|main|4294901751|4
12|PENDING|Priority||2:00|1795311060|main|4294901750|4
14|PENDING|JobHeldUser||10:00|N/A|main|0|4
26|PENDING|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions||5:00|N/A|small|7|4
31|PENDING|ReqNodeNotAvail, UnavailableNodes:n1||5:00|N/A|small|6|4
10|RUNNING|None|n[1-2]|1-00:04:58|1795310721|main|4294901752|4
13|COMPLETING|None|n[1-2]|4:35|1795310721|main|4294901752|4
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


EVERY = [line.partition("|")[0] for line in QUEUE.splitlines()[1:]]


def every(text: str) -> dict[str, JobStatus]:
    """All jobs of the queue above that an answer tells of."""
    return answers.jobs(text, EVERY)


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
    """A recorded squeue answer gives state, reason, nodes, time left, cores and (estimated) start of each job asked for."""
    jobs = every(wire(QUEUE))
    assert (jobs["10"].state, jobs["10"].nodes, jobs["10"].time_left) == (JobState.RUNNING, ("n1", "n2"), 86698)
    assert (jobs["12"].state, jobs["12"].reason, jobs["12"].time_left) == (JobState.PENDING, "Priority", None)
    assert (jobs["12"].estimated_start, jobs["14"].estimated_start) == (1795311060.0, None)
    assert (jobs["10"].started, jobs["12"].started) == (1795310721.0, None)
    assert {job.cores for job in jobs.values()} == {4}
    assert jobs["13"].state is JobState.RUNNING
    assert jobs["5"].ending.reason is Reason.CANCELLED
    assert jobs["17"].ending.node == "n1"
    assert jobs["26"].reason.startswith("Nodes required")
    assert set(answers.jobs(wire(QUEUE), ["10", "99"])) == {"10"}


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("96", 96), ("4K", 4096), ("2M", 2 << 20)])
def test_cores(text, number):
    """Slurm writes round numbers short."""
    assert answers.jobs(wire(f"{HEADING}\n7|RUNNING|None|n1|1:00|1|main|1|{text}\n"), ["7"])["7"].cores == number


def test_noise_before_the_heading():
    """What a login shell prints before the answer is no part of it."""
    assert set(every("Welcome!\n\n" + wire(QUEUE))) == set(every(wire(QUEUE)))


@pytest.mark.parametrize("text", ["", "\n", "Welcome!", QUEUE, "<html>", "\0\xff"])
def test_an_answer_without_its_heading_is_none(text):
    """An empty answer does not say that there are no jobs; only an empty table does."""
    for read in (every, lambda t: answers.carriers(t, "x")):
        with pytest.raises(ValueError, match="without its heading"):
            read(text)
    assert every(wire(HEADING) + "\n") == {}


@pytest.mark.parametrize(
    "row", ["10|RUNNING", "10|RUNNING|None|n[1|1|1|main|1|1", "10|RUNNING|None|n1|1|1|main|1|many"]
)
def test_a_row_that_makes_no_sense(row):
    """Half a row, or one with a value that cannot be, spoils the answer."""
    with pytest.raises(ValueError, match=r"row of|list of nodes|int"):
        every(wire(f"{HEADING}\n{row}\n"))


@given(st.text(alphabet="JOBID|STATERNx[]0-9,\n \x1f", max_size=200))
def test_garbage_raises_nothing_but_value_error(text):
    """Any text is an answer or a ValueError, for every reader."""
    about = (answers.jobs, answers.places)
    readers = (
        *(lambda t, read=read: read(t, EVERY) for read in about),
        answers.records,
        answers.history,
        answers.hides_jobs,
    )
    readers = (*readers, lambda t: answers.carriers(t, "x"))
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
    status = answers.jobs(wire(f"{HEADING}\n1|{word}|None||1:00|N/A|main|1|1\n"), ["1"])["1"]
    assert (status.state, status.raw) == (state, word)
    assert (status.ending is not None) == (state is JobState.ENDED)


def test_how_jobs_ended():
    """The controller's records give reason, exit status, signal and node; what users wrote cannot pose as them."""
    found = answers.records(ENDED)
    assert set(found) == {"17", "19", "21", "4", "5", "20", "30"}
    assert found.pop("30") is None
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


PLACES = f"""{HEADING}
8|PENDING|Priority||1:00|N/A|main|8|2
9|PENDING|Priority||1:00|N/A|main|8|16
100|PENDING|Priority||1:00|N/A|main|8|4K
11|PENDING|Priority||1:00|N/A|main,long|7|16
12|PENDING|Resources||1:00|N/A|long|9|15
14|PENDING|JobHeldUser||1:00|N/A|main|0|1
15|PENDING|JobHeldUser||1:00|N/A|main|9|1
16|PENDING|Dependency||1:00|N/A|main|9|1
17|PENDING|BeginTime||1:00|N/A|main|9|1
10|RUNNING|None|n1|1:00|1795310721|main|9|1
31|PENDING|Priority||1:00|N/A|small|1|1
"""


def test_places():
    """Ahead are those of higher priority in the same partitions, not those who wait for something else; some are smaller."""
    found = answers.places(wire(PLACES), ["11", "31", "14", "17", "10", "9"])
    assert found == {"11": (4, 2), "31": (0, 0), "9": (1, 1)}


@pytest.mark.parametrize(
    ("told", "hidden"), [("none", False), ("jobs", True), ("accounts,jobs,usage", True), ("usage", False)]
)
def test_hidden_jobs(told, hidden):
    """Slurm's configuration says whether others' jobs can be seen; where it does not say, that is no answer."""
    assert answers.hides_jobs(f"Configuration data as of today\nPrivateData             = {told}\nX = jobs\n") is hidden
    with pytest.raises(ValueError, match="without PrivateData"):
        answers.hides_jobs("slurm_load_ctl_conf error")


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
