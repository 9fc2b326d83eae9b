"""What tasks print: in the cell that submitted them, and in `future.logs()`, from whatever it comes and however they end."""

from __future__ import annotations

import re
import textwrap

import pytest

from tests.acceptance.conftest import notebook_at_work

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook whose cluster has one worker of one core."""
    with notebook_at_work(tmp_path_factory.mktemp("notebook")) as notebook:
        notebook.run("import ctypes, logging, multiprocessing, os, subprocess, sys, threading, time, warnings")
        yield notebook


def streams(cell):
    """Its output as (stream, text), neighbours of one stream together."""
    found = []
    for kind, content in cell.outputs:
        if kind == "stream" and found and found[-1][0] == content["name"]:
            found[-1][1] += content["text"]
        elif kind == "stream":
            found.append([content["name"], content["text"]])
    return [tuple(one) for one in found]


def run(notebook, code):
    """Run a cell that succeeds."""
    cell = notebook.run(textwrap.dedent(code))
    assert cell.reply["status"] == "ok", cell.outputs
    return cell


def test_all_that_a_task_prints_is_in_its_cell_and_in_its_logs(notebook):
    """Print, logging, warnings, C code, children, threads and forks: in order, live, and afterwards as well."""
    cell = run(
        notebook,
        """
        def chatty():
            print("printed")
            print("to stderr", file=sys.stderr)
            logging.getLogger("mine").warning("logged")
            ctypes.CDLL(None).puts(b"by C"); ctypes.CDLL(None).fflush(None)
            subprocess.run(["echo", "by a child"])
            os.system("echo by a shell")
            sys.stdout.buffer.write("bÿtes\\n".encode())
            thread = threading.Thread(target=print, args=("by a thread",)); thread.start(); thread.join()
            child = multiprocessing.get_context("fork").Process(target=print, args=("by a fork",)); child.start(); child.join()
            warnings.warn("warned")
            print("no end", end="")
        future = hpc.submit(chatty)
        print("submitted")
        future.result()
        print("done")
        """,
    )
    said = "printed\nto stderr\nlogged\nby C\nby a child\nby a shell\nbÿtes\nby a thread\nby a fork\n"
    text = "".join(text for _, text in streams(cell))
    assert text.startswith("submitted\n" + said), text
    assert "UserWarning: warned" in text
    assert text.endswith("no end\ndone\n")
    assert [name for name, some in streams(cell) if "logged" in some] == ["stderr"]
    logs = run(notebook, "print(future.logs(), end='')").text
    assert logs.startswith(said)
    assert logs.endswith("no end")


def test_lines_arrive_while_the_task_runs_in_the_cell_that_submitted_it(notebook, tmp_path):
    """Another cell runs meanwhile, and shows nothing of it."""
    cell = run(
        notebook,
        f"""
        def slow(go):
            print("begun")
            while not os.path.exists(go): time.sleep(0.01)
            print("gone on")
        future = hpc.submit(slow, {str(tmp_path / "go")!r})
        """,
    )
    notebook.hear_until(lambda: "begun\n" in cell.text)
    other = run(notebook, f"open({str(tmp_path / 'go')!r}, 'w').close(); future.result()")
    assert other.text == ""
    notebook.hear_until(lambda: cell.text == "begun\ngone on\n")


def test_lines_of_several_tasks_say_whose_they_are(notebook):
    """A map's calls have their numbers, a task that is tried again its attempts; a bar of progress is what it became."""
    cell = run(
        notebook,
        """
        def member(x):
            print("half", end=" "); print("line", x)
            print("10 %\\r20 %", file=sys.stderr)
        futures = hpc.map(member, range(3), batch_size=3)
        hpc.gather(futures)
        def fails():
            print("trying")
            raise ValueError("never")
        failing = hpc.submit(fails, retries=1)
        print(type(failing.exception()).__name__)
        """,
    )
    lines = cell.text.splitlines()
    assert [line.partition(" on ")[0] for line in lines] == [
        *[f"member[{x}]" for x in range(3) for _ in "12"],
        "fails",
        "fails",
        "ValueError",
    ]
    assert [line.partition(": ")[2] for line in lines[:4]] == ["half line 0", "20 %", "half line 1", "20 %"]
    assert lines[7].partition(" on ")[2].partition(", ")[2] == "attempt 2: trying"
    assert run(notebook, "print(futures[1].logs(), end='')").text == "half line 1\n10 %\r20 %\n"
    logs = run(notebook, "print(failing.logs(), end='')").text.splitlines()
    assert [line.partition(",")[0] for line in logs] == ["── attempt 1", "trying", "── attempt 2", "trying"]


def test_a_flood_is_cut_in_the_cell_and_nowhere_else(notebook):
    """The cell shows its beginning, a count and its end, in a few messages; the logs have every line."""
    cell = run(
        notebook,
        """
        def flood(n):
            for i in range(n): print("line", i)
        future = hpc.submit(flood, 200_000)
        future.result()
        """,
    )
    displays = [content for kind, content in cell.outputs if kind.endswith("display_data")]
    ids = {content["transient"]["display_id"] for content in displays}
    notebook.hear_until(lambda: "line 199999\n" in cell.outputs[-1][1].get("data", {}).get("text/plain", ""))
    last = cell.outputs[-1][1]["data"]["text/plain"]
    counted, lines = re.match("… (.*) lines, see `future.logs\\(\\)` of flood\n", last), cell.text.splitlines()
    assert lines == [f"line {i}" for i in range(200_000 - int(counted[1].replace(",", "")))]
    assert 1000 <= len(lines) < 1500
    assert len(ids) <= 1
    counted = run(notebook, "logs = future.logs().splitlines(); print(len(logs), logs[-1])")
    assert counted.text == "200000 line 199999\n"


@pytest.mark.parametrize("how", ["isolated", "cancelled", "late"])
def test_what_was_printed_before_the_end_is_there(notebook, tmp_path, how):
    """Of a task in a process of its own, one that is cancelled in the middle, one whose time is over."""
    run(
        notebook,
        f"""
        def endless(how):
            print("begun", how)
            os.write(1, b"written\\n")
            open({str(tmp_path / how)!r}, "w").close()
            while how != "isolated": time.sleep(0.01)
        options = {{"isolated": {{"isolate": True}}, "late": {{"timeout": 1}}}}.get({how!r}, {{}})
        task = hpc.task(**options)(endless)
        future = hpc.submit(endless, "cancelled") if {how!r} == "cancelled" else task({how!r})
        while not os.path.exists({str(tmp_path / how)!r}): time.sleep(0.01)
        if {how!r} == "cancelled": future.cancel()
        hpc.wait([future])
        """,
    )
    shown = run(notebook, "print(future.logs(), end='')").text
    assert shown == f"begun {how}\nwritten\n"


def test_a_task_may_redirect_its_descriptors(notebook):
    """One that redirects stdout for a while, to catch what C code writes, has that, and its prints go on."""
    run(
        notebook,
        """
        def catches():
            kept, (reader, writer) = os.dup(1), os.pipe()
            os.dup2(writer, 1)
            os.write(1, b"caught")
            print("printed meanwhile")
            os.dup2(kept, 1)
            print("back,", os.read(reader, 100))
        future = hpc.submit(catches)
        future.result()
        """,
    )
    assert run(notebook, "print(future.logs(), end='')").text == "printed meanwhile\nback, b'caught'\n"


def test_what_a_killed_worker_has_printed_is_there(notebook, tmp_path):
    """SIGKILL in the middle of printing loses nothing that was flushed; the next attempt is marked, and so is where it ran."""
    run(
        notebook,
        f"""
        def kills():
            for i in range(1000): print("line", i)
            sys.stdout.flush()
            if not os.path.exists({str(tmp_path / "killed")!r}):
                open({str(tmp_path / "killed")!r}, "w").close()
                os.kill(os.getpid(), 9)
        future = hpc.submit(kills)
        future.result()
        """,
    )
    logs = run(notebook, "print(future.logs(), end='')").text.splitlines()
    heads = [line for line in logs if line.startswith("──")]
    assert [head.split(",")[0] for head in heads] == ["── attempt 1", "── attempt 2"]
    assert [line for line in logs if line not in heads] == [f"line {i}" for i in range(1000)] * 2


def test_logs_are_filtered_by_level_node_task_and_text(notebook):
    """`%hpc logs` finds lines by what was logged and by what they say of themselves, and names what it does not know."""
    run(
        notebook,
        """
        def grumbles(x):
            print("fine", x)
            print("ERROR: out of paper", x)
            logging.getLogger("mine").warning("careful %s", x)
        hpc.gather(hpc.map(grumbles, range(3), batch_size=1))
        """,
    )
    lines = run(notebook, "%hpc logs grumbles --level warning").text.splitlines()
    assert sorted(line.partition("│ ")[2] for line in lines) == [f"ERROR: out of paper {x}" for x in range(3)] + [
        f"careful {x}" for x in range(3)
    ]
    found = run(notebook, "%hpc logs --task grumbles --grep 'fine [12]'").text.splitlines()
    assert sorted(line.partition("│ ")[2] for line in found) == ["fine 1", "fine 2"]
    assert run(notebook, "%hpc logs worker --node elsewhere").text == ""
    assert len(run(notebook, "%hpc logs worker -n 5 --level info").text.splitlines()) in (5, 6)
    assert run(notebook, "print(hpc.current().logs('grumbles', 1, grep='careful 0'))").text.endswith(" ──\ncareful 0\n")
    wrong = notebook.run("%hpc logs worker --grep '('")
    assert wrong.error[0] == "ConfigError"


def test_following_shows_what_comes_until_it_is_interrupted(notebook, tmp_path):
    """`%hpc logs TASK -f` begins with what there is; Ctrl-C ends it, and is no error."""
    run(
        notebook,
        f"""
        def turns(folder):
            for turn in range(3):
                print("turn", turn)
                while not os.path.exists(f"{{folder}}/{{turn}}"): time.sleep(0.01)
        future = hpc.submit(turns, {str(tmp_path)!r})
        """,
    )
    cell = notebook.send("%hpc logs turns -f")
    for turn in range(3):
        notebook.hear_until(lambda turn=turn: f"turn {turn}\n" in cell.text)
        (tmp_path / str(turn)).touch()
    notebook.manager.interrupt_kernel()
    assert notebook.wait(cell).reply["status"] == "ok"
    assert [line for line in cell.text.splitlines() if "──" not in line] == ["turn 0", "turn 1", "turn 2"]


def test_the_explorer_searches_in_place(notebook):
    """Its fields filter what it shows; where nobody can use them there is a page and text."""
    for on_page in (True, False):
        cell = notebook.wait(notebook.send("%hpc explore grumbles", allow_stdin=on_page))
        (shown,) = [content["data"] for kind, content in cell.outputs if kind == "display_data"]
        assert on_page == ("application/vnd.jupyter.widget-view+json" in shown)
        assert "careful 2" in shown["text/plain"]
        assert "careful 2" in shown["text/html"]
    found = run(
        notebook,
        """
        from hpcnb.notebook.logs import Explorer
        explorer = Explorer(hpc.current().handle, "grumbles")
        def until(text, without="nothing"):
            deadline = time.monotonic() + 30
            while (text not in explorer.page.value or without in explorer.page.value) and time.monotonic() < deadline:
                time.sleep(0.01)
            return explorer.page.value
        explorer.grep.value = "paper 1"
        print("paper 2" in until("paper 1"))
        explorer.grep.value = "(<"
        print(until("unterminated"))
        explorer.grep.value = ""
        explorer.level.value = "warning"  # a second search: the first one shows all
        page = until("careful", without="fine")
        print("careful" in page, "fine" in page)
        """,
    ).text.splitlines()
    assert (found[0], found[-1]) == ("False", "True False")


def test_dasks_own_logs_are_still_there(notebook):
    """`cluster.get_logs()` has the scheduler's and the worker's."""
    said = run(notebook, "print(*sorted(hpc.current().get_logs()))").text
    assert "Cluster Scheduler" in said
    assert "tls://" in said


def test_logs_outlive_worker_job_and_kernel(notebook):
    """After the cluster has ended, the same future still has them."""
    run(notebook, "future = hpc.submit(print, 'last words'); future.result()\n%hpc down")
    assert run(notebook, "print(future.logs(), end='')").text == "last words\n"
