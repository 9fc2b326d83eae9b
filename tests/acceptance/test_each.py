"""`%%hpc --each`: a cell as one task for each element, in a notebook's kernel with two workers of one core."""

from __future__ import annotations

import re
import subprocess
import sys
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
def folder(tmp_path_factory):
    """Where the notebook lies, with a module beside it."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "beside.py").write_text("def double(x): return 2 * x\n")
    return folder


@pytest.fixture(scope="module")
def notebook(folder):
    """A notebook with two workers."""
    with notebook_at_work(folder, workers=2) as notebook:
        notebook.run("import os, time")
        yield notebook


def printed(notebook, code):
    """What a cell prints."""
    return run(notebook, code).text


# -- values --------------------------------------------------------------------------------------------------------------


def test_values_come_in_the_order_of_the_elements(notebook):
    """One list for each name; nothing else of the body comes, and nothing is shown but what it prints."""
    cell = run(notebook, '%%hpc --each "seed in range(50)" -o score\nhelp_me = seed\nscore = help_me ** 2')
    assert cell.outputs == []
    said = printed(
        notebook, "print(score == [seed**2 for seed in range(50)], 'help_me' in globals(), 'seed' in globals())"
    )
    assert said == "True False False\n"
    run(
        notebook,
        "%%hpc --each \"a, (b, *c) in zip('uv', [(1, 2, 3), (4,)])\" -o 'n,text'\nn = b + len(c)\ntext = a * b",
    )
    assert printed(notebook, "print(n, text)") == "[3, 4] ['u', 'vvvv']\n"


def test_the_body_has_what_it_reads(notebook):
    """Values, functions with their globals, classes, imports, modules beside the notebook; as they are when the cell begins."""
    run(
        notebook,
        """
        import numpy as np
        import numpy.linalg as la
        import beside
        from dataclasses import dataclass
        base = 10
        def shift(x): return x + base
        @dataclass
        class Point:
            x: int
        origin = Point(1)
        matrix = np.eye(2)
        """,
    )
    body = "p = Point(int(la.norm(matrix @ np.array([k, 0]))) + shift(origin.x) + beside.double(k))"
    run(notebook, f'%%hpc --each "k in range(3)" -o p\n{body}')
    assert printed(notebook, "print(p, type(p[0]) is Point)") == "[Point(x=11), Point(x=14), Point(x=17)] True\n"


@pytest.mark.parametrize("length", [3, 1_000_000])
def test_elements_have_nothing_to_do_with_each_other(notebook, length):
    """What one does to a variable, or binds, another one does not see, in whatever batch or process; variables may be large."""
    run(
        notebook,
        f"""
        import collections, numpy as np
        seen, counter, grid = [], collections.Counter(), np.zeros({length})
        def count(k):
            counter[k] += 1
            grid[0] += 1
            return sum(counter.values()), int(grid[0])
        """,
    )
    body = "seen.append(k)\nn, old, new = count(k), seen, 'mine' not in globals()\nmine = 1"
    run(notebook, f'%%hpc --each "k in range(500)" -o "n,new,old"\n{body}')
    said = printed(notebook, "print(set(n), set(new), old == [[k] for k in range(500)], seen, counter, grid[0])")
    assert said == "{(1, 1)} {True} True [] Counter() 0.0\n"


def test_large_variables_travel_once(notebook, figure):
    """A matrix of 60 MB is no matter for a hundred elements; one that is above the limit is refused by its name, but for -i."""
    run(notebook, "big = np.zeros(7_500_000); import resource")
    began = time.monotonic()
    run(notebook, '%%hpc --each "k in range(100)" -o s\nbig[0] += k\ns = big[0]')
    figure(f"100 elements with 60 MB in {time.monotonic() - began:.1f} s")
    assert printed(notebook, "print(s == list(range(100)))") == "True\n"
    assert time.monotonic() - began < patient(30.0)
    run(notebook, "huge = np.zeros(13_000_000)")
    cell = notebook.run('%%hpc --each "k in range(2)" -o s\ns = huge.nbytes')
    assert cell.error[0] == "CannotSerialize"
    assert "huge (numpy.ndarray) is larger than the 100 MB" in cell.error[1]
    assert "-i huge" in cell.error[1]
    run(notebook, '%%hpc --each "k in range(2)" -i huge -o s\ns = huge.nbytes')
    assert printed(notebook, "print(s); del huge, big") == "[104000000, 104000000]\n"


def test_the_clause_is_evaluated_in_the_notebook_as_it_was_typed(notebook):
    """Braces are Python's, and not IPython's; futures are replaced by their values."""
    run(notebook, "i = 99; xs = hpc.map(abs, [-1, -2])")
    run(notebook, "%%hpc --each \"word in [f'{i}' for i in range(3)]\" -o w\nw = word")
    run(notebook, '%%hpc --each "x in xs" -o y\ny = x * 10')
    assert printed(notebook, "print(w, y)") == "['0', '1', '2'] [10, 20]\n"


def test_without_elements_lists_are_empty(notebook):
    """And a line says so."""
    assert run(notebook, '%%hpc --each "k in []" -o "a,b"\na = b = k').text == "k in []: no elements, a = [], b = []\n"
    assert printed(notebook, "print(a, b)") == "[] []\n"
    assert run(notebook, '%%hpc --each "k in []" --quiet\nk').text == ""


def test_an_await_works_as_in_a_cell(notebook):
    """Of the body itself."""
    run(notebook, '%%hpc --each "k in range(3)" -o d\nimport asyncio\nawait asyncio.sleep(0.01)\nd = k + 1')
    assert printed(notebook, "print(d)") == "[1, 2, 3]\n"


@pytest.mark.parametrize(("length", "most"), [(3, 5.0), (100_000, 5.0), (5_000_000, 8.0)])
def test_elements_run_on_all_workers(notebook, length, most):
    """Four long ones take twice the time on two workers; if what they need is so large that it travels once, both are used, too."""
    run(notebook, f"import numpy as np\ngrid = np.zeros({length})")
    body = "began = time.time()\ntime.sleep(2)\nspans = os.getpid(), began, time.time(), grid.size"
    run(notebook, f'%%hpc --each "k in range(4)" -o spans\n{body}')
    pids, began, ended, sizes = eval(printed(notebook, "print(list(zip(*spans)))"))
    assert len(set(pids)) == 2
    assert max(ended) - min(began) < patient(most)
    assert set(sizes) == {length}


def test_a_thousand_short_elements_take_seconds(notebook, figure):
    """They travel many at a time."""
    run(notebook, "offset = 1")
    began = time.monotonic()
    run(notebook, '%%hpc --each "k in range(1000)" -o y\ny = k + offset')
    figure(f"a thousand elements in {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < patient(5.0)
    assert printed(notebook, "print(y == list(range(1, 1001)))") == "True\n"


def test_what_elements_print_is_shown(notebook):
    """Below the cell, with whose it is; without -o nothing comes back."""
    cell = run(notebook, "%%hpc --each \"k in 'ab'\"\nimport sys\nprint('line', k)\nprint('err', k, file=sys.stderr)")
    lines = sorted(re.sub(r" on \S+: ", ": ", line) for line in cell.text.splitlines())
    assert lines == ["k[0]: err a", "k[0]: line a", "k[1]: err b", "k[1]: line b"]
    assert run(notebook, '%%hpc --each "k in [1]"\nprint("alone")').text.endswith("alone\n")


def test_how_far_it_is_is_shown_unless_it_is_to_be_quiet(notebook):
    """By the clause's own words, after two seconds."""
    code = '%%hpc --each "k in range(5)" {}\ntime.sleep(1)'
    shown = [
        content["data"]["text/plain"] for kind, content in run(notebook, code.format("")).outputs if "display" in kind
    ]
    assert any(re.match(r"k in range\(5\): 5 done", text) for text in shown), shown
    assert run(notebook, code.format("--quiet")).outputs == []


def test_a_notebook_of_two_cells(isolated, monkeypatch):
    """Without a cluster the default site is started; how far it is is shown, though nothing of `hpc` was used before."""
    for name, value in (environment() | isolated.environ).items():
        monkeypatch.setenv(name, value)
    code = '%%hpc --each "k in range(2)" -o twice\nimport time\ntime.sleep(2.5)\ntwice = 2 * k'
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in ("%load_ext hpcnb", code, "twice", "%hpc down")]
    )
    NotebookClient(made, timeout=90, kernel_name="python3").execute()
    said, *shown = [output.get("text") or output.data["text/plain"] for output in made.cells[1].outputs]
    assert said == "no cluster yet: starting one on the default site (`%hpc down` ends it)\n"
    assert [text for text in shown if text.startswith("k in range(2): 2 done")] == shown[1:]
    assert made.cells[2].outputs[0].data["text/plain"] == "[0, 2]"


# -- faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [False, True])
def test_what_an_element_raises_is_raised_as_itself(notebook, sent):
    """With the line of the cell, which elements it was, and where the others are; those have ended, and are not lost."""
    run(notebook, "class Odd(Exception): pass\nscale = 10")
    body = "def check(k):\n    if k in (3, 7):\n        raise Odd(f'no {k}')\ncheck(k)\n"
    cell = notebook.run(f'%%hpc --each "k in range(20)" -o score\n{body}score = {"scale" if sent else "10"} * k')
    assert cell.error == ("Odd", "no 3")
    text = plain(cell)
    assert re.search(r"Cell In\[\d+\], line 5, in <module>\n.*\n.*\n----> +5 check\(k\)", text), text
    assert re.search(r"Cell In\[\d+\], line 4, in check", text)
    assert "2 of 20 elements failed: k = 3; k = 7. This is the error of k = 3." in text
    assert not re.search("get_ipython|element.py|each.py", text)
    said = printed(
        notebook, 'fs = hpc.futures("score"); print(len(fs), [f.result() for f in fs if f.state == "finished"][-1])'
    )
    assert said == "20 190\n"
    assert printed(notebook, "print('score' in globals() and len(score) == 20)") == "False\n"
    assert (
        printed(notebook, "print(hpc.retry(fs)); hpc.wait(fs); print([f.state for f in fs].count('failed')); del fs")
        == "2\n2\n"
    )
    run(notebook, '%%hpc --each "k in range(2)" -o score\nscore = k')
    left = "[batch for batch in hpc.current().client.ledger.known() if batch.tag == 'score']"
    assert printed(notebook, f"import gc; gc.collect(); print(score, {left}); del score") == "[0, 1] []\n"


def test_a_name_that_an_element_has_not_set_is_named(notebook):
    """As the error of that element."""
    cell = notebook.run('%%hpc --each "k in range(4)" -o half\nif k % 2 == 0: half = k // 2')
    assert cell.error[0] == "TaskError"
    assert "this element has not set half" in cell.error[1]
    assert "2 of 4 elements failed: k = 1; k = 3." in plain(cell)


def test_what_cannot_be_sent_is_named(notebook):
    """Nothing is run."""
    run(notebook, "gen = (i for i in range(3))")
    cell = notebook.run('%%hpc --each "k in range(4)"\nprint("ran")\nlist(gen)')
    assert cell.error[0] == "CannotSerialize"
    assert "gen (generator)" in cell.error[1]
    assert "ran" not in cell.text
    cell = notebook.run('%%hpc --each "k in [1, (i for i in range(3))]"\nprint("ran")')
    assert cell.error[0] == "CannotSerialize"


@pytest.mark.parametrize(
    ("line", "body", "message"),
    [
        ('--each "k of range(3)"', "k", "--each takes what stands between `for` and the colon"),
        ('--each "k in itertools.count()"', "k", "or no end"),
        ('--each "k in 3"', "k", "'int' object is not iterable"),
        ('--each "k in [1]" -s other', "k", "-s does not go with --each"),
        ('--each "k in [1]" --detach', "k", "--detach does not go with --each"),
        ('--each "k in [1]" -i nowhere', "k", "the notebook has no variable nowhere"),
        ('--each "k in [1]"', "!echo ran", "a cell has no magics"),
        ('--each "k in [1]"', "%%time\nk", "a cell has no magics"),
        ("--each", "k", "expected one argument"),
    ],
)
def test_what_is_not_possible_is_refused(notebook, line, body, message):
    """In words, and nothing is submitted."""
    run(notebook, "import itertools")
    before = printed(notebook, "print(len(hpc.current().client.ledger.known()))")
    cell = notebook.run(f"%%hpc {line}\nprint('ran')\n{body}" if not body.startswith("%%") else f"%%hpc {line}\n{body}")
    assert cell.reply["status"] == "error"
    assert message in cell.text, cell.outputs
    assert "ran" not in cell.text.splitlines()
    assert printed(notebook, "print(len(hpc.current().client.ledger.known()))") == before


def test_errors_before_anything_is_submitted_have_their_type(notebook):
    """Those of the clause, and of a body that is no Python."""
    cell = notebook.run('%%hpc --each "k in missing"\nk')
    assert cell.error[0] == "NameError"
    assert "nothing was submitted" in plain(cell)
    cell = notebook.run('%%hpc --each "k in [1]"\nk\nk = = 1')
    assert cell.error[0] == "SyntaxError"
    assert "line 3" in cell.error[1]
    cell = notebook.run('%%hpc --each "k in [1]" --cluster nowhere\nk')
    assert cell.error[0] == "NotReady"
    assert "'nowhere'" in cell.error[1]


# -- the end -------------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_an_interrupt_cancels_what_has_not_ended(notebook):
    """What has ended is kept; the workers are free at once."""
    cell = notebook.send('%%hpc --each "k in range(5)" -o done\ndone = k\nif k == 1:\n    time.sleep(100)')
    notebook.hear_until(lambda: "4 of 5 done" in str(cell.outputs))
    began = time.monotonic()
    notebook.manager.interrupt_kernel()
    notebook.wait(cell)
    assert time.monotonic() - began < patient(PROMPT)
    assert cell.error[0] == "KeyboardInterrupt"
    assert cell.error[1] == "4 of 5 elements had ended, the others are cancelled"
    assert '`hpc.futures("done")` has all in order' in plain(cell)
    run(notebook, '%%hpc --each "k in range(2)" -o pids\npids = os.getpid()')
    assert time.monotonic() - began < patient(2 * PROMPT)
    assert (
        printed(notebook, 'print([f.result() for f in hpc.futures("done") if not f.cancelled()])') == "[0, 2, 3, 4]\n"
    )


@pytest.mark.alone
def test_a_limit_of_time_is_that_of_the_whole_cell(notebook):
    """What has not ended by then is cancelled."""
    began = time.monotonic()
    cell = notebook.run('%%hpc --each "k in [0, 100]" --timeout 2s -o slept\ntime.sleep(k)\nslept = k')
    assert 2 < time.monotonic() - began < 2 + patient(PROMPT)
    assert cell.error[0] == "TaskTimeout"
    assert "the cell did not end within its 2 s: 1 of 2 elements had ended" in cell.error[1]
    assert '`hpc.futures("slept")` has all in order' in plain(cell)
    assert printed(notebook, 'print(hpc.futures("slept")[0].result())') == "0\n"


def test_results_outlive_the_cluster(notebook):
    """What had ended before the cluster did is not lost with it; no test after this one has a cluster."""
    cell = notebook.send('%%hpc --each "k in range(4)" -o kept\nkept = k\nif k == 1: time.sleep(100)')
    notebook.hear_until(lambda: "3 of 4 done" in str(cell.outputs))
    ended = subprocess.run([sys.executable, "-m", "hpcnb.cli", "down", "local"], env=notebook.environ, check=False)
    assert ended.returncode == 0
    notebook.wait(cell)
    assert cell.error[0] in ("JobFailed", "NotReady")
    assert "1 of 4 elements failed: k = 1." in plain(cell)
    assert "hpc.futures" not in plain(cell)
    said = printed(notebook, "import sys; print([f.result() for f in sys.last_value.futures if f.state == 'finished'])")
    assert said == "[0, 2, 3]\n"
