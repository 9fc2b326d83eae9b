"""What `%%hpc` does beyond running a cell: variables, interrupts, detached cells, questions, floods, errors."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.figures import patient

PROMPT = 2.0
"""Seconds within which an interrupt has ended everything."""


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- variables -----------------------------------------------------------------------------------------------------


def test_what_a_cell_reads_is_sent_along(kernel):
    """A variable, a function with its globals and a class of the notebook are there without a word."""
    kernel.run(
        "base = 10\ndef helper(x): return x + base\ndef f(x): return helper(x) * 2\nclass C:\n    n = 3\nc = C()"
    )
    cell = kernel.run("%%hpc\nprint(f(1), c.n, isinstance(c, C))")
    assert cell.text == "22 3 True\n"
    # It is the notebook's `base` no longer: the session has its own, as one namespace has.
    assert kernel.run("%%hpc\nbase = 20\nprint(f(1))").text == "42\n"
    assert kernel.run("base").outputs[0][1]["data"]["text/plain"] == "10"


def test_what_the_session_has_is_not_sent_again_unless_asked(kernel):
    """The session's value counts, until -i says otherwise."""
    kernel.run("%%hpc\nmine = 'theirs'")
    kernel.run("mine = 'ours'")
    assert kernel.run("%%hpc\nprint(mine)").text == "theirs\n"
    assert kernel.run("%%hpc -i mine\nprint(mine)").text == "ours\n"


def test_values_are_brought_back(kernel):
    """-o binds variables of the session in the notebook, by value, and functions find their globals here."""
    kernel.run("scale = 3")
    kernel.run("%%hpc -o a,times\nimport numpy as np\nscale = 2\na = np.arange(3)\ndef times(x): return x * scale")
    assert kernel.run("a += 1; print(a, times(5))").text == "[1 2 3] 15\n"


def test_a_missing_output_is_named(kernel):
    """-o of a name that the cell does not bind says so."""
    cell = kernel.run("%%hpc -o nowhere\n1")
    assert cell.error[0] == "TaskError"
    assert "nowhere" in cell.error[1]


def test_what_cannot_be_sent_is_named(kernel):
    """The message names the variable, its type and what to do, and nothing was run."""
    kernel.run("gen = (i for i in range(3))")
    cell = kernel.run("%%hpc\nprint('ran')\nlist(gen)")
    name, message = cell.error
    assert name == "CannotSerialize"
    assert "gen (generator)" in message
    assert "Create gen in the cell" in message
    assert cell.text == ""


def test_what_is_too_large_to_be_sent_unasked_is_named(kernel):
    """More than 100 MB is refused with the way to allow it; -i allows it."""
    kernel.run("import numpy as np; huge = np.zeros(13_000_000)")
    name, message = kernel.run("%%hpc\nhuge.nbytes").error
    assert name == "CannotSerialize"
    assert "huge (numpy.ndarray)" in message
    assert "-i huge" in message
    assert kernel.run("%%hpc -i huge\nprint(huge.nbytes)").text == "104000000\n"
    kernel.run("%%hpc\ndel huge")
    kernel.run("del huge")


# -- output --------------------------------------------------------------------------------------------------------


def test_a_flood_is_cut_in_the_view_and_whole_in_the_log(kernel, host):
    """Of 100,000 lines a thousand are shown, the rest is counted; the log has each of them."""
    cell = kernel.run("%%hpc -s flood\nfor i in range(10**5): print('line', i)")
    assert cell.text.count("\n") == 1000
    shown = [content["data"]["text/plain"] for kind, content in cell.outputs if "display_data" in kind]
    assert shown[-1].startswith("… 99,000 lines more, all of them: `%hpc logs flood`\n")
    assert "line 99999" in shown[-1]
    assert len({content["transient"]["display_id"] for kind, content in cell.outputs if "display_data" in kind}) == 1
    log = (host.run_dir / "logs" / "session-flood.log").read_text()
    assert log == "".join(f"line {i}\n" for i in range(10**5))


def test_the_first_line_is_not_held_back(kernel, tmp_path):
    """Text appears while the cell runs, and not only when there is more of it."""
    go = tmp_path / "go"
    code = f"import os, time\nprint('first', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\nprint('last')"
    cell = kernel.send(f"%%hpc\n{code}")
    kernel.hear_until(lambda: cell.text == "first\n")
    assert not cell.idle
    go.touch()
    assert kernel.wait(cell).text == "first\nlast\n"


def test_output_lands_in_the_cell_that_started_it(kernel):
    """Three detached cells that print in turns each keep their own output."""
    kernel.run("%%hpc -s a\nimport time")
    kernel.run("%%hpc -s b\nimport time")
    kernel.run("%%hpc -s c\nimport time")
    code = "%%hpc --detach -s {0}\nfor i in range(8):\n    print('{0}', i, flush=True)\n    time.sleep(0.1)\ndisplay('{0}')\n'{0}'"
    cells = {name: kernel.send(code.format(name)) for name in "abc"}
    after = kernel.run("print('meanwhile')")
    assert after.text == "meanwhile\n"
    assert all(kernel.wait(cell).reply["status"] == "ok" for cell in cells.values())
    kernel.hear_until(lambda: all("done" in str(cell.outputs[-1]) for cell in cells.values()))
    for name, cell in cells.items():
        assert cell.text == "".join(f"{name} {i}\n" for i in range(8))
        results = [content["data"]["text/plain"] for kind, content in cell.outputs if kind != "stream"]
        handle = f"<cell in session '{name}': "
        assert results == [f"{handle}running>", f"'{name}'", f"'{name}'", f"{handle}done>"]
        ids = [
            content["transient"]
            for kind, content in cell.outputs
            if "done>" in str(content) or "running>" in str(content)
        ]
        assert ids[0] == ids[1] != {}


def test_a_quiet_cell_shows_its_own_output_alone(kernel):
    """With --quiet a detached cell shows no handle either, but has one."""
    cell = kernel.run("%%hpc --quiet --detach -s quiet\nprint('mine')")
    assert kernel.run("_.result(10)").outputs[0][1]["data"]["text/plain"] == "{}"
    kernel.hear_until(lambda: cell.text == "mine\n")
    assert [kind for kind, _ in cell.outputs] == ["stream"]


def test_detached_cells_of_one_session_run_in_order(kernel):
    """A kernel does one thing at a time; the second cell finds what the first one made."""
    kernel.run("%%hpc -s order\nimport time")
    kernel.run("one = get_ipython().run_cell_magic('hpc', '--detach -s order', 'time.sleep(0.3); made = 1')")
    kernel.run("two = get_ipython().run_cell_magic('hpc', '--detach -s order -o made', 'made += 1')")
    assert kernel.run("print(two.result(10), made, one.done(), one, two.interrupt())").text == (
        "{'made': 2} 2 True <cell in session 'order': done> False\n"
    )


def test_a_display_is_updated_after_its_cell_has_ended(kernel):
    """An update that a later cell makes reaches the display of the earlier one."""
    kernel.run("%%hpc\nh = display('old', display_id='later')")
    cell = kernel.run("%%hpc\nh.update('new')")
    [(kind, content)] = cell.outputs
    assert (kind, content["transient"], content["data"]) == (
        "update_display_data",
        {"display_id": "later"},
        {"text/plain": "'new'"},
    )


# -- interrupts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "busy",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import asyncio; await asyncio.sleep(1000)",
        "import subprocess; subprocess.run(['sleep', '1000'])",
        "!sleep 1000",
    ],
)
@pytest.mark.alone
def test_an_interrupt_ends_the_cell_and_nothing_else(kernel, busy, tmp_path):
    """Whatever it does, the cell ends within two seconds with KeyboardInterrupt, and the variables are there."""
    kernel.run("%%hpc\nkept = 'kept'")
    flushed = tmp_path / "flushed"  # what is printed is here before its flush has returned there
    cell = kernel.send(f"%%hpc\nprint('begun', flush=True); open({str(flushed)!r}, 'w').close()\n{busy}")
    kernel.hear_until(lambda: "begun" in cell.text and flushed.exists())
    began = time.monotonic()
    kernel.manager.interrupt_kernel()
    kernel.wait(cell)
    assert time.monotonic() - began < patient(PROMPT)
    if not busy.startswith("!"):  # IPython itself takes that interrupt for the command's alone
        assert cell.reply["status"] == "error"
        assert cell.error[0] in ("KeyboardInterrupt", "CancelledError")
        assert "line 3" in re.sub("\x1b.*?m", "", "".join(cell.reply["traceback"]))
    assert kernel.run("%%hpc\nprint(kept)").text == "kept\n"


@pytest.mark.parametrize(
    "child",
    [
        "subprocess.Popen(['sleep', '1000'])",
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)",
        "subprocess.Popen(['sh', '-c', 'trap \"\" INT; while :; do sleep 0.1; done'])",
        "subprocess.Popen(['sh', '-c', 'trap \"\" INT TERM; while :; do sleep 0.1; done'])",
    ],
)
@pytest.mark.alone
def test_an_interrupt_ends_the_children_too(kernel, child):
    """A child of the cell is gone within two seconds, also one that ignores the interrupt."""
    cell = kernel.send(f"%%hpc\nimport subprocess, time\np = {child}\nprint(p.pid, flush=True)\ntime.sleep(1000)")
    kernel.hear_until(lambda: cell.text.endswith("\n"))
    pid = int(cell.text)
    began = time.monotonic()
    kernel.manager.interrupt_kernel()
    kernel.wait(cell)
    while alive(pid):
        assert time.monotonic() - began < patient(PROMPT)
        time.sleep(0.01)


def test_a_child_of_an_earlier_cell_survives_an_interrupt_that_it_ignores(kernel):
    """What another cell has started is not the interrupted cell's."""
    start = "subprocess.Popen(['sleep', '1000'], start_new_session=True)"
    pid = int(kernel.run(f"%%hpc\nimport subprocess, time\nearlier = {start}\nprint(earlier.pid)").text)
    cell = kernel.send("%%hpc\nprint('begun', flush=True); time.sleep(1000)")
    kernel.hear_until(lambda: "begun" in cell.text)
    kernel.manager.interrupt_kernel()
    kernel.wait(cell)
    assert kernel.run("%%hpc\nprint(earlier.poll())").text == "None\n"
    kernel.run("%%hpc\nearlier.kill(); earlier.wait()")
    assert not alive(pid)


@pytest.mark.alone
def test_an_interrupt_while_variables_are_packed_sends_nothing(kernel):
    """The cell ends at once, and never runs."""
    kernel.run(
        "import time\nclass Slow:\n    def __reduce__(self): print('packing', flush=True); time.sleep(1000)\nslow = Slow()"
    )
    cell = kernel.send("%%hpc\nslow, print('ran')")
    kernel.hear_until(lambda: "packing" in cell.text)
    began = time.monotonic()
    kernel.manager.interrupt_kernel()
    kernel.wait(cell)
    assert time.monotonic() - began < patient(PROMPT)
    assert cell.error == ("KeyboardInterrupt", "the cell was not sent")
    assert "ran" not in cell.text
    assert kernel.run("%%hpc\nprint('slow' in globals())").text == "False\n"


def test_a_detached_cell_is_interrupted_by_its_handle(kernel):
    """The one that runs ends with KeyboardInterrupt, the one that waits never runs."""
    kernel.run("%%hpc -s stop\nimport time")
    kernel.run("running = get_ipython().run_cell_magic('hpc', '--detach -s stop', 'time.sleep(1000)')")
    kernel.run("waiting = get_ipython().run_cell_magic('hpc', '--detach -s stop', 'ran = True')")
    said = kernel.run(
        "print(waiting.interrupt(), running.interrupt())\n"
        "for handle in running, waiting:\n"
        "    try: handle.result(5)\n"
        "    except KeyboardInterrupt as e: print(type(e).__name__, e)"
    )
    assert said.text == "True True\nKeyboardInterrupt \nKeyboardInterrupt the cell had not begun\n"
    assert kernel.run("%%hpc -s stop\nprint('ran' in globals())").text == "False\n"


@pytest.mark.alone
def test_a_cell_that_takes_too_long_is_stopped(kernel):
    """--timeout interrupts the cell and raises TaskTimeout; the session goes on."""
    began = time.monotonic()
    cell = kernel.run("%%hpc --timeout 1s\nimport time\nprint('begun')\ntime.sleep(1000)")
    assert time.monotonic() - began < 1 + patient(PROMPT)
    assert cell.error[0] == "TaskTimeout"
    assert "did not end within its 1 s" in cell.error[1]
    assert cell.text == "begun\n"
    assert kernel.run("%%hpc\nprint('on')").text == "on\n"


# -- questions -----------------------------------------------------------------------------------------------------


def test_a_question_is_asked_here_and_answered_there(kernel):
    """input() and getpass() of a cell ask the notebook's user."""
    cell = kernel.send("%%hpc\nimport getpass\nprint(input('name? '), getpass.getpass('word? '))", allow_stdin=True)
    for prompt, hidden, answer in (("name? ", False, "Ada"), ("word? ", True, "secret")):
        question = kernel.client.get_stdin_msg(timeout=10)
        assert (question["content"]["prompt"], question["content"]["password"]) == (prompt, hidden)
        kernel.client.input(answer)
    assert kernel.wait(cell).text == "Ada secret\n"


def test_a_question_that_nobody_can_answer_is_an_error(kernel):
    """Without stdin a cell fails with the message that Jupyter has for that."""
    cell = kernel.run("%%hpc\nprint('before')\ninput('name? ')")
    assert cell.error == (
        "StdinNotImplementedError",
        "raw_input was called, but this frontend does not support input requests.",
    )


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--wrong", "unrecognized arguments: --wrong"),
        ("-i nowhere", "the notebook has no variable nowhere"),
        ("-o 1x", "'1x' is not the name of a variable"),
        ("--timeout soon", "'soon' is not a duration"),
        ("-s", "expected one argument"),
        ("'", "No closing quotation"),
    ],
)
def test_a_wrong_line_is_refused_before_anything_is_sent(kernel, line, message):
    """The error says what is wrong; the cell is not run."""
    cell = kernel.run(f"%%hpc {line}\nprint('ran')")
    assert cell.reply["status"] == "error"
    assert message in cell.text
    assert "ran" not in cell.text.splitlines()


def test_the_death_of_the_kernel_ends_the_cell_and_the_next_one_has_a_new_kernel(kernel):
    """A kernel that is killed is named with its signal; the session can be used again."""
    cell = kernel.run("%%hpc -s dies\nimport os, signal\ngone = 1\nos.kill(os.getpid(), signal.SIGKILL)")
    assert cell.error[0] == "TaskLost"
    assert "SIGKILL" in cell.error[1]
    assert "session dies" in cell.error[1]
    assert kernel.run("%%hpc -s dies\nprint('gone' in globals())").text == "False\n"


def test_an_exit_does_not_end_the_session(kernel):
    """sys.exit() in a cell is an error of the cell, no more."""
    cell = kernel.run("%%hpc\nimport sys\nstays = 1\nsys.exit('enough')")
    assert cell.error == ("SystemExit", "enough")
    assert kernel.run("%%hpc\nprint(stays)").text == "1\n"


def test_an_exception_can_be_caught_by_its_own_type(kernel):
    """What a cell raises is raised here as itself."""
    code = "try:\n    get_ipython().run_cell_magic('hpc', '', 'import json; json.loads(\"{\")')\n"
    code += "except json.JSONDecodeError as e:\n    print('caught', e.pos)"
    assert kernel.run("import json\n" + code).text == "caught 1\n"
