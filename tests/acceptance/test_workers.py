"""`%%hpc --all-workers` and `%%hpc -n`: a cell in workers' own processes, in a notebook's kernel with two workers of one core."""

from __future__ import annotations

import ast
import base64
import os
import re
import signal
import textwrap
import time

import nbformat
import pytest
from nbclient import NotebookClient

from tests.acceptance.cells import plain, run
from tests.acceptance.conftest import notebook_at_work
from tests.figures import patient
from tests.unit.pilot.host import environment

pytestmark = pytest.mark.slow

PROMPT = 2.0


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook with two workers."""
    with notebook_at_work(tmp_path_factory.mktemp("notebook"), workers=2) as notebook:
        notebook.run("import os, time\nhpc.current().client.wait_for_workers(2, 60)")
        yield notebook


def value(notebook, expression):
    """What an expression is in the notebook."""
    return ast.literal_eval(run(notebook, f"print(({expression}))").text)


def everywhere(notebook, code, *, line=""):
    """Run a cell in all workers."""
    return run(notebook, f"%%hpc --all-workers {line}\n" + textwrap.dedent(code).strip())


def shown(cell):
    """What a cell displays, as text, in order of the workers."""
    return sorted(content["data"]["text/plain"] for kind, content in cell.outputs if kind != "stream")


@pytest.fixture
def node(notebook):
    """The name of the only node."""
    return re.match(r"0-(.*)-0$", min(value(notebook, NAMES)))[1]


NAMES = (
    "sorted(str(w['name']) for w in hpc.current().client.sync("
    "hpc.current().client.scheduler.identity, n_workers=-1)['workers'].values())"
)


# -- where it runs -------------------------------------------------------------------------------------------------------


def test_all_workers_runs_a_cell_once_in_each(notebook):
    """Each process that is there, once; a list in their order comes back."""
    everywhere(notebook, "import os\npid, log = os.getpid(), [os.getpid()]", line="-o pid,log")
    pids, logs = value(notebook, "(pid, log)")
    assert len(set(pids)) == 2
    assert logs == [[pid] for pid in pids]
    everywhere(notebook, "from distributed import get_worker\nname = str(get_worker().name)", line="-o name")
    assert value(notebook, "name") == value(notebook, NAMES)


@pytest.mark.parametrize("which", ["0", "name"])
def test_a_node_is_named_or_numbered(notebook, node, which):
    """Its first worker runs the cell, always the same; the value comes back bare."""
    which = node if which == "name" else which
    everywhere(notebook, "import os\npid = os.getpid()", line="-o pid")
    cell = run(notebook, f"%%hpc -n {which} -o one,two\none = os.getpid()\ntwo = 'x'\nprint(2)")
    assert cell.text == f"0-{node}-0: 2\n"
    assert value(notebook, "(pid[0] == one, two)") == (True, "x")


def test_a_node_that_is_not_there_is_an_error_that_names_those_that_are(notebook, node):
    """And nothing is run."""
    for wrong in ("1", "nowhere"):
        cell = notebook.run(f"%%hpc -n {wrong}\nprint('ran')")
        assert cell.reply["status"] == "error"
        assert f"there is no node '{wrong}' with workers; those that are there: 0 ({node})" in cell.text
        assert "ran" not in cell.text.splitlines()


def test_options_are_completed(notebook):
    """By the tab key."""
    notebook.client.complete("%%hpc --al")
    while (found := notebook.client.get_shell_msg(timeout=30))["msg_type"] != "complete_reply":
        pass
    assert found["content"]["matches"] == ["--all-workers"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--all-workers -s other", "-s does not go with --all-workers"),
        ("-n 0 -s other", "-s does not go with -n"),
        ('--all-workers --each "k in [1]"', "--all-workers does not go with --each"),
        ('-n 0 --each "k in [1]"', "-n does not go with --each"),
        ("--all-workers -n 0", "-n does not go with --all-workers"),
        ("--all-workers --detach", "--detach does not go with --all-workers"),
        ("--all-workers -i nowhere", "the notebook has no variable nowhere"),
        ("-n", "expected one argument"),
    ],
)
def test_what_is_not_possible_is_refused(notebook, line, message):
    """In words, and nothing is run."""
    cell = notebook.run(f"%%hpc {line}\nprint('ran')")
    assert cell.reply["status"] == "error"
    assert message in cell.text, cell.outputs
    assert "ran" not in cell.text.splitlines()


# -- its namespace -------------------------------------------------------------------------------------------------------


def test_the_namespace_is_the_worker_s_own_and_lasts(notebook):
    """Variables, imports, functions and classes of one cell are there in the next, by whichever of the options."""
    everywhere(
        notebook,
        """
        import math, pickle
        from dataclasses import dataclass
        count = 1
        def root(x):
            return math.sqrt(x) + count
        @dataclass
        class Point:
            x: int
        """,
    )
    run(notebook, "%%hpc -n 0 -o a\ncount += 1\na = root(4)")
    everywhere(notebook, "b = root(9), pickle.loads(pickle.dumps(Point(3))).x", line="-o b")
    assert value(notebook, "(a, b, 'root' in globals())") == (4.0, [(5.0, 3), (4.0, 3)], False)


# -- variables -----------------------------------------------------------------------------------------------------------


def test_what_the_worker_lacks_is_sent_and_what_it_has_is_not_overwritten(notebook):
    """By value: functions with what they need, too; -i sends in any case."""
    run(notebook, "scale, base = 10, 1\ndef shift(x): return x * scale + base")
    run(notebook, "%%hpc -n 0\nscale = 100")
    everywhere(notebook, "c = shift(2), base, scale", line="-o c")
    assert value(notebook, "c") == [(201, 1, 100), (21, 1, 10)]
    run(notebook, "scale = base = 5")
    everywhere(notebook, "c = shift(2), base, scale", line="-o c")
    assert value(notebook, "c") == [(201, 1, 100), (21, 1, 10)]
    everywhere(notebook, "c = shift(2), base, scale", line="-o c -i scale")
    assert value(notebook, "c") == [(11, 1, 5), (11, 1, 5)]


def test_large_variables_travel_once_and_have_a_limit(notebook):
    """Some for all workers; too much is refused by its name, but for -i, and then nothing is run."""
    run(notebook, "import numpy as np\nbig, huge = np.zeros(5_000_000), np.ones(13_000_000)")
    everywhere(notebook, "big[0] += 1\nn = big.sum()", line="-o n")
    assert value(notebook, "([float(x) for x in n], float(big[0]))") == ([1.0, 1.0], 0.0)
    cell = notebook.run("%%hpc --all-workers\nprint('ran')\nhuge.sum()")
    assert cell.error[0] == "CannotSerialize"
    assert "huge (numpy.ndarray) is larger than the 100 MB" in cell.error[1]
    assert "ran" not in cell.text
    run(notebook, "%%hpc -n 0 -i huge -o n\nn = int(huge.sum())\ndel huge")
    assert value(notebook, "n") == 13_000_000
    run(notebook, "del huge, big")


def test_what_cannot_be_sent_is_named(notebook):
    """Nothing is run."""
    run(notebook, "gen = (i for i in range(3))")
    cell = notebook.run("%%hpc --all-workers\nprint('ran')\nlist(gen)")
    assert cell.error[0] == "CannotSerialize"
    assert "gen (generator)" in cell.error[1]
    assert "ran" not in cell.text


def test_a_worker_that_has_not_set_a_name_is_named(notebook, node):
    """As the error of that worker."""
    run(notebook, "%%hpc -n 0\nmine = 1")
    cell = notebook.run("%%hpc --all-workers -o mine\n2")
    assert cell.error[0] == "TaskError"
    assert f"worker 0-{node}-1 has not set mine" in cell.error[1]
    assert f"1 of 2 workers failed: 0-{node}-1." in plain(cell)
    assert value(notebook, "'mine' in globals()") is False


# -- output --------------------------------------------------------------------------------------------------------------


def test_what_is_printed_appears_while_the_cell_runs(notebook, node, tmp_path):
    """With the name of the worker: from Python, and from shell lines."""
    go = tmp_path / "go"
    wait = f"!until [ -e {go} ]; do sleep 0.05; done"
    cell = notebook.send(f"%%hpc --all-workers\nprint('first')\n!echo second\n{wait}\nprint('last')")
    notebook.hear_until(lambda: cell.text.count("second") == 2)
    assert not cell.idle
    assert "last" not in cell.text
    go.touch()
    notebook.wait(cell)
    said = ("first", "second", "last")
    assert sorted(cell.text.splitlines()) == sorted(f"0-{node}-{n}: {word}" for n in (0, 1) for word in said)


def test_values_and_displays_are_shown_by_worker(notebook, node):
    """With all their types; what ends with a semicolon is not."""
    code = """
    from distributed import get_worker
    class Rich:
        def _repr_html_(self): return f'<b>{get_worker().name}</b>'
        def __repr__(self): return 'rich'
    display(Rich())
    7
    6 * 7
    """
    cell = everywhere(notebook, code)
    assert shown(cell) == sorted(f"0-{node}-{n}: {text}" for n in (0, 1) for text in ("rich", "42"))
    html = [content["data"].get("text/html") for kind, content in cell.outputs if kind == "display_data"]
    assert {f"<b>0-{node}-{n}</b>" for n in (0, 1)} <= set(html)
    assert everywhere(notebook, "6 * 7;").outputs == []


def test_pictures_and_updates_of_displays(notebook, node):
    """Each worker's update is of its own display; what is too large says so."""
    everywhere(
        notebook,
        """
        class Picture:
            def _repr_png_(self): return b'\\x89PNG' * 10
            def __repr__(self): return 'picture'
        """,
    )
    cell = everywhere(notebook, "h = display(Picture(), display_id='one')\nh.update(Picture())")
    displays = [(kind, content) for kind, content in cell.outputs if kind != "stream"]
    assert sorted((kind, content["transient"]["display_id"]) for kind, content in displays) == sorted(
        (kind, f"0-{node}-{n}-one") for kind in ("display_data", "update_display_data") for n in (0, 1)
    )
    assert {base64.b64decode(content["data"]["image/png"])[:4] for _, content in displays} == {b"\x89PNG"}
    cell = run(notebook, "%%hpc -n 0\nPicture._repr_png_ = lambda self: b'x' * 9_000_000\nPicture()")
    (text,) = shown(cell)
    assert re.fullmatch(rf"0-{node}-0: picture \(image/png is not shown: it has .* MB, more than 4.2 MB\)", text), text


def test_a_flood_is_cut_and_the_log_has_all(notebook, node):
    """By the command that is named."""
    cell = run(notebook, "%%hpc -n 0\nfor i in range(3000): print('line', i)")
    assert f"see `%hpc logs worker-0-{node}-0`" in str(cell.outputs)
    assert "line 2999" in run(notebook, f"%hpc logs worker-0-{node}-0 -n 3").text


def test_magics_and_scripts_work(notebook, node, tmp_path):
    """They are those of the worker's IPython."""
    cell = run(notebook, "%%hpc -n 0 -o words\nword = 'x'\nwords = !echo {word} y\n%cd -q /\n!pwd\n%who_ls str")
    assert f"0-{node}-0: /\n" in cell.text
    assert value(notebook, "list(words)") == ["x y"]
    cell = run(notebook, "%%hpc -n 0\n%%bash\necho from bash\necho to stderr >&2")
    assert sorted(cell.text.splitlines()) == [f"0-{node}-0: from bash", f"0-{node}-0: to stderr"]
    for _ in range(2):
        cell = run(notebook, "%%hpc -n 0\n%%python\nprint('from python')")
        assert cell.text == f"0-{node}-0: from python\n"
    run(notebook, "%%hpc -n 0\n%%script bash --out caught\necho caught")
    run(notebook, "%%hpc -n 0 -o caught\npass")
    assert value(notebook, "repr(caught)") == "caught\n"
    cell = notebook.run("%%hpc -n 0\n%%bash\nexit 3")
    assert cell.error[0] == "CalledProcessError"
    file = "%%writefile {}\nprint('odd')\n1 / 0".format(tmp_path / "odd.py")
    run(notebook, f"%%hpc -n 0\n{file}")
    cell = run(notebook, f"%%hpc -n 0\n%run {tmp_path / 'odd.py'}")
    assert "ZeroDivisionError: division by zero" in cell.text
    cell = run(notebook, "%%hpc -n 0\n%%time\ntimed = 1")
    assert "Wall time" in cell.text
    run(notebook, "%%hpc -n 0\nassert timed == 1")
    cell = run(notebook, "%%hpc -n 0\n%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert ["image/png" in content["data"] for kind, content in cell.outputs if kind != "stream"] == [True]
    cell = notebook.run("%%hpc -n 0\nimport sys\nsys.exit(3)")
    assert cell.error[0] == "TaskFailed"
    assert cell.text == ""
    cell = notebook.run("%%hpc -n 0\n%nonsense")
    assert "nonsense" in str(cell.outputs)


def test_an_await_works_as_in_a_session(notebook):
    """What one cell has begun, the next one awaits."""
    begin = "event = asyncio.Event()\nwaiting = asyncio.create_task(event.wait())\nawait asyncio.sleep(0.01)"
    run(notebook, f"%%hpc -n 0\nimport asyncio\n{begin}")
    run(notebook, "%%hpc -n 0 -o done\nevent.set()\ndone = await waiting")
    assert value(notebook, "done") is True


# -- errors --------------------------------------------------------------------------------------------------------------


def test_what_a_worker_raises_is_raised_as_itself(notebook, node):
    """With the cell's own lines, after all have ended; those that failed are named, and no IPython is in the traceback."""
    run(notebook, "class Odd(Exception): pass")
    code = "def check(n):\n    raise Odd(f'no {n}')\n\nimport time\ntime.sleep(0.5)\ndone = 1\ncheck(3)"
    cell = notebook.run(f"%%hpc --all-workers\n{code}")
    assert cell.error == ("Odd", "no 3")
    text = plain(cell)
    assert re.search(r"Cell In\[\d+\], line 8, in <module>\n(.*\n)*?----> +8 check\(3\)", text), text
    assert re.search(r"Cell In\[\d+\], line 3, in check", text), text
    assert f"2 of 2 workers failed: 0-{node}-0; 0-{node}-1. This is the error of 0-{node}-0." in text
    assert not re.search(r"interactiveshell|cell\.py|shell\.py|everywhere\.py", text)
    everywhere(notebook, "assert done == 1\ndel done")


def test_one_that_fails_stops_no_other(notebook, node):
    """It is named, and what the other one has done is there."""
    code = "from distributed import get_worker\nif str(get_worker().name).endswith('-0'): 1 / 0\nelse: other = 1"
    cell = notebook.run(f"%%hpc --all-workers\n{code}")
    assert cell.error == ("ZeroDivisionError", "division by zero")
    assert f"1 of 2 workers failed: 0-{node}-0." in plain(cell)
    everywhere(notebook, "k = 'other' in globals()", line="-o k")
    assert value(notebook, "k") == [False, True]


def test_a_mistake_in_the_code_is_known_before_anything_is_sent(notebook):
    """With its line."""
    cell = notebook.run("%%hpc --all-workers\nprint('ran')\nk = = 1")
    assert cell.error[0] == "SyntaxError"
    assert "line 3" in cell.error[1]


@pytest.mark.alone
@pytest.mark.parametrize(
    "code",
    [
        "!sleep 123",
        "import asyncio\nawait asyncio.sleep(100)",
        "while True:\n    try: time.sleep(0.1)\n    except Exception: pass",
        "import threading\nthreading.Event().wait()",
    ],
)
def test_an_interrupt_ends_it_on_all_workers(notebook, code):
    """Also what waits in the shell, in a coroutine, or in C, or catches exceptions; the next cell runs at once."""
    cell = notebook.send(f"%%hpc --all-workers\nimport time\nprint('begun')\n{code}")
    notebook.hear_until(lambda: cell.text.count("begun") == 2)
    began = time.monotonic()
    notebook.manager.interrupt_kernel()
    notebook.wait(cell)
    assert time.monotonic() - began < patient(PROMPT)
    assert cell.error == ("KeyboardInterrupt", "0 of 2 workers had ended, the others are cancelled")
    find = "import subprocess\nleft = subprocess.run(['pgrep', '-f', 'sleep 12[3]'], stdout=-1).stdout"
    everywhere(notebook, find, line="-o left")
    assert time.monotonic() - began < patient(3 * PROMPT)
    assert value(notebook, "left") == [b"", b""]


@pytest.mark.alone
def test_an_interrupt_ends_a_script(notebook):
    """That of a cell magic."""
    cell = notebook.send("%%hpc --all-workers\n%%bash\necho begun\nsleep 123")
    notebook.hear_until(lambda: cell.text.count("begun") == 2)
    notebook.manager.interrupt_kernel()
    notebook.wait(cell)
    assert cell.error[0] == "KeyboardInterrupt"
    find = "import subprocess\nleft = subprocess.run(['pgrep', '-f', 'sleep 12[3]'], stdout=-1).stdout"
    everywhere(notebook, find, line="-o left")
    assert value(notebook, "left") == [b"", b""]


@pytest.mark.alone
def test_a_limit_of_time_is_that_of_all_workers(notebook):
    """What has not ended by then is cancelled."""
    began = time.monotonic()
    code = "from distributed import get_worker\nimport time\nif str(get_worker().name).endswith('-0'): time.sleep(100)"
    cell = notebook.run(f"%%hpc --all-workers --timeout 2s\n{code}")
    assert 2 < time.monotonic() - began < 2 + patient(PROMPT)
    assert cell.error == (
        "TaskTimeout",
        "the cell did not end within its 2 s: 1 of 2 workers had ended, the others are cancelled",
    )


# -- beside tasks --------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_cell_goes_before_tasks_that_wait_and_disturbs_none(notebook, node):
    """What runs goes on; while no core is free it is said what is waited for."""
    run(
        notebook,
        """
        def work(n):
            time.sleep(5)
            return n, os.getpid()
        fs = hpc.map(work, range(4), batch_size=1)
        while sum('work' in key for key in hpc.current().client.executing()) < 2: time.sleep(0.05)
        """,
    )
    began = time.monotonic()
    cell = everywhere(notebook, "import os\npid = os.getpid()", line="-o pid")
    assert time.monotonic() - began < patient(7.0)
    said = [re.sub(" of job [0-9a-f]+", "", line) for line in cell.text.splitlines() if "as soon as" in line]
    assert said == [
        f"cell is with worker 0-{node}-{n}, and runs there as soon as a core is free: it is at work on work"
        for n in (0, 1)
    ]
    assert value(notebook, "sum(f.done() for f in fs)") == 2
    ended = value(notebook, "[f.result()[0] for f in fs], {f.result()[1] for f in fs} == set(pid)")
    assert ended == (list(range(4)), True)
    assert value(notebook, "[f.attempts for f in fs]") == [1] * 4


@pytest.mark.alone
def test_a_cell_that_waits_is_interrupted_and_never_runs(notebook):
    """The tasks that it waited for go on."""
    run(
        notebook,
        """
        def work(n):
            time.sleep(5)
            return n
        fs = hpc.map(work, range(2), batch_size=1)
        while sum('work' in key for key in hpc.current().client.executing()) < 2: time.sleep(0.05)
        """,
    )
    cell = notebook.send("%%hpc --all-workers\nwaited = 1")
    notebook.hear_until(lambda: "as soon as a core is free" in cell.text)
    began = time.monotonic()
    notebook.manager.interrupt_kernel()
    notebook.wait(cell)
    assert time.monotonic() - began < patient(PROMPT)
    assert cell.error == ("KeyboardInterrupt", "0 of 2 workers had ended, the others are cancelled")
    assert value(notebook, "hpc.gather(fs)") == [0, 1]
    everywhere(notebook, "k = 'waited' in globals()", line="-o k")
    assert value(notebook, "k") == [False, False]


def test_tasks_have_nothing_of_the_cells(notebook):
    """Their namespaces are their own, and what they print and display is theirs."""
    everywhere(notebook, "hidden = 1")
    said = run(
        notebook,
        """
        def task():
            from IPython.display import display
            display(3)
            return 'hidden' in globals()
        print(hpc.submit(task).result())
        """,
    )
    assert said.text == "3\nFalse\n"


# -- deaths --------------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_worker_that_dies_is_an_error_of_that_worker(notebook, node, tmp_path):
    """The cell is not run again, neither there nor elsewhere, and the other worker ends; the next cell has the new one."""
    ran = tmp_path / "ran"
    code = f"""
    import os, signal, time
    from distributed import get_worker
    with open({str(ran)!r}, 'a') as file: file.write(f'{{get_worker().name}}\\n')
    if str(get_worker().name).endswith('-1'): os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(1)
    survived = 1
    """
    began = time.monotonic()
    cell = notebook.run("%%hpc --all-workers -o survived\n" + textwrap.dedent(code).strip())
    assert time.monotonic() - began < patient(10.0)
    assert cell.error[0] == "TaskLost"
    assert f"worker 0-{node}-1 is gone" in cell.error[1]
    assert "SIGSEGV" in cell.error[1]
    assert f"1 of 2 workers failed: 0-{node}-1." in plain(cell)
    run(notebook, "hpc.current().client.wait_for_workers(2, 60)")
    everywhere(notebook, "k = 'survived' in globals()", line="-o k")
    assert value(notebook, "k") == [True, False]
    assert sorted(ran.read_text().split()) == [f"0-{node}-0", f"0-{node}-1"]


@pytest.mark.alone
def test_a_worker_that_dies_before_the_cell_begins_is_such_an_error_too(notebook, node):
    """What ran there is run again, as ever; the cell is not."""
    everywhere(notebook, "import os\npid = os.getpid()", line="-o pid")
    code = """
    def work(n):
        time.sleep(8)
        return n
    fs = hpc.map(work, range(2), batch_size=1)
    while sum('work' in key for key in hpc.current().client.executing()) < 2: time.sleep(0.05)
    """
    run(notebook, code)
    pids = value(notebook, "pid")
    cell = notebook.send("%%hpc -n 0\nprint('ran')")
    notebook.hear_until(lambda: "as soon as a core is free" in cell.text)
    os.kill(pids[0], signal.SIGKILL)
    notebook.wait(cell)
    assert cell.error[0] == "TaskLost"
    assert f"worker 0-{node}-0 is gone" in cell.error[1]
    assert "SIGKILL" in cell.error[1]
    assert "ran" not in cell.text.split()
    assert value(notebook, "hpc.gather(fs)") == [0, 1]


def test_beside_other_calls_of_the_same_worker(notebook, node):
    """On a worker of two cores what each prints is its own, and two cells there take turns."""
    run(notebook, "%hpc up local --name wide --workers-per-node 1 --cores-per-worker 2")
    run(
        notebook,
        "import subprocess\ndef talk():\n    for n in range(10):\n        subprocess.run(['echo', 'task']); print('task'); time.sleep(0.1)",
    )
    cell = notebook.run("f = hpc.submit(talk)\nf.result()")
    assert cell.text.split() == ["task"] * 20
    tell = "hpc.submit(lambda: __import__('sys').modules.{}).result()"
    run(notebook, tell.format("update({'hpcnb.pilot.worker.shell': None})"))
    cell = notebook.run("%%hpc --all-workers\n1")
    assert cell.error[0] == "TaskError"
    assert f"the Python of worker 0-{node}-0 cannot run such a cell: " in cell.error[1]
    run(notebook, tell.format("pop('hpcnb.pilot.worker.shell') and None"))
    run(notebook, "f = hpc.submit(talk)")
    cell = everywhere(notebook, "for n in range(5):\n    !echo cell\n    display(n)\n    print('cell')")
    assert [line for line in cell.text.splitlines() if "as soon" not in line] == [f"0-{node}-0: cell"] * 10
    assert shown(cell) == [f"0-{node}-0: {n}" for n in range(5)]
    begin = "import time\nbegan = time.time()\ntime.sleep(1)\nended = time.time()"
    run(
        notebook,
        f"""
    import threading
    from IPython import get_ipython
    from hpcnb.future.pinned import send_to
    from hpcnb.pilot.worker.cell import Cell
    client = hpc.current().client
    workers = {{a: w['name'] for a, w in client.sync(client.scheduler.identity, n_workers=-1)['workers'].items()}}
    cells = [send_to(client, workers, Cell({begin!r}, 'x', outputs=['began', 'ended']), [((),)])[0] for _ in range(2)]
    """,
    )
    (first, second) = sorted(value(notebook, "hpc.gather(cells)"))
    assert first[1] <= second[0]
    run(notebook, "%hpc down wide")
    run(notebook, "%hpc attach local")


# -- without a cluster ---------------------------------------------------------------------------------------------------


def test_a_notebook_of_two_cells(isolated, monkeypatch):
    """Without a cluster the default site is started, with a line that says so, and waited for."""
    for name, value in (environment() | isolated.environ).items():
        monkeypatch.setenv(name, value)
    code = "%%hpc --all-workers -o twice\ntwice = 2 * k"
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in ("%load_ext hpcnb\nk = 4", code, "set(twice)", "%hpc down")]
    )
    NotebookClient(made, timeout=90, kernel_name="python3").execute()
    assert made.cells[1].outputs[0].text == "no cluster yet: starting one on the default site (`%hpc down` ends it)\n"
    assert made.cells[2].outputs[0].data["text/plain"] == "{8}"
