"""What a notebook shows of a task that failed: the line that really did, wherever the code came from; ours is folded."""

from __future__ import annotations

import re
import socket

import pytest

from tests.acceptance.conftest import notebook_at_work

START = 60.0
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

MODULE = """
def outer(x):
    return inner(x) + 1

def inner(x):
    steps = [x]
    return steps[1]  # HERE
"""
EARLIER = """
def earlier(x):
    y = x - 1
    return 1 / y  # HERE
"""
DECORATOR = """
import functools
def logged(fn):
    @functools.wraps(fn)
    def wrapper(*args):
        note = "before"
        return fn(*args)
    return wrapper
"""

CASES = {
    "a function": ("def f(x):\n    y = x\n    return y.nothing  # HERE\nhpc.submit(f, 1).result()", "AttributeError"),
    "a function of an earlier cell": (
        "def f(x):\n    return earlier(x)\nhpc.submit(f, 1).result()",
        "ZeroDivisionError",
    ),
    "a lambda": ("g = lambda x: (\n    x\n    / 0  # HERE?\n)\nhpc.submit(g, 1).result()", "ZeroDivisionError"),
    "a decorated function": ("@logged\ndef f(x):\n    return x[0]  # HERE\nhpc.submit(f, 1).result()", "TypeError"),
    "a module beside the notebook": ("import beside\nhpc.submit(beside.outer, 1).result()", "IndexError"),
    "a method": (
        (
            "class Model:\n    def __init__(self):\n        self.rate = 0\n    def fit(self, x):\n        return x / self.rate  # HERE\n"
            "hpc.submit(Model().fit, 1).result()"
        ),
        "ZeroDivisionError",
    ),
    "a generator": (
        "def f(n):\n    def rows():\n        yield 1\n        yield {}['k']  # HERE\n    return list(rows())\nhpc.submit(f, 1).result()",
        "KeyError",
    ),
    "several lines": (
        "def f(a):\n    return max(\n        1,\n        a.b,  # HERE\n    )\nhpc.submit(f, 1).result()",
        "AttributeError",
    ),
    "a cause": (
        (
            "def f(x):\n    try:\n        earlier(x)\n    except ZeroDivisionError as error:\n        raise ValueError('chained') from error  # HERE\n"
            "hpc.submit(f, 1).result()"
        ),
        "ValueError",
    ),
    "a coroutine": (
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise OSError(5, 'x')  # HERE\nhpc.submit(f).result()",
        "OSError",
    ),
    "a library": (
        "import json\ndef f(x):\n    return json.loads(x)  # HERE+\nhpc.submit(f, '{').result()",
        "JSONDecodeError",
    ),
    "gathered": ("hpc.gather(hpc.map(earlier, [2, 1]))", "ZeroDivisionError"),
    "one of its own type": (
        (
            "class Mine(Exception):\n    def __init__(self, a, b):\n        super().__init__(a, b)\ndef f():\n    raise Mine(1, 2)  # HERE\n"
            "hpc.submit(f).result()"
        ),
        "Mine",
    ),
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook with a cluster on this machine."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "beside.py").write_text(MODULE)
    with notebook_at_work(folder) as notebook:
        for cell in (EARLIER, DECORATOR):
            notebook.run(cell)
        yield notebook


@pytest.mark.parametrize("case", CASES)
def test_the_arrow_is_on_the_line_that_failed(notebook, case):
    """For each way to write a task: the last arrow is on the line that failed, the task and its host are named, nothing of ours is shown."""
    code, kind = CASES[case]
    cell = notebook.wait(notebook.send(code), START)
    shown = [content for what, content in cell.outputs if what == "error"][-1]
    text = COLOURS.sub("", "\n".join(shown["traceback"]))
    assert shown["ename"] == kind
    arrows = [line for line in text.splitlines() if line.startswith("---->")]
    if "HERE+" in code:  # below the user's line there are the library's
        assert any("HERE+" in line for line in arrows), text
    elif "HERE?" in code:  # which line of an expression it is, Python decides
        assert re.search(r"\bx$|/ 0", arrows[-1].removesuffix("# HERE?").rstrip()), text
    else:
        assert "HERE" in arrows[-1], text
    assert f"{socket.gethostname()}" in text
    assert re.search(r"in task \S+-", text), text
    assert re.search(r"Cell In\s?\[\d+\], line \d+", text), text
    assert "hpcnb/" not in text, text
    assert "distributed/" not in text, text
