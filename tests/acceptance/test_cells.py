"""Sample cells give the same outputs and the same namespace with `%%hpc` and without it."""

from __future__ import annotations

import re
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.unit.pilot.host import HostProcess, environment

SAMPLES = {
    "print and stderr": """
        import sys
        print("one"); print("two", file=sys.stderr); print("three", end="")
        sys.stderr.write("four\\n"); print()""",
    "streams in turns": """
        for i in range(3):
            print("out", i, flush=True)
            print("err", i, file=sys.stderr, flush=True)""",
    "last expression": "value = {'a': [1, 2], 'b': (3,)}\nvalue",
    "silenced expression": "value['a'];",
    "out history": "Out[max(Out)], _, In[-2][:20]",
    "table": "import pandas as pd\ntable = pd.DataFrame({'x': [1, 2], 'y': ['a', 'ü']})\ntable",
    "figure": """
        import matplotlib.pyplot as plt
        _ = plt.plot([1, 3, 2])""",
    "displays": """
        from IPython.display import HTML, Markdown, display
        display(HTML("<b>bold</b>"), Markdown("*it*"), {"plain": 1})""",
    "display updates": """
        handle = display("first", display_id="mine")
        display("second", display_id="mine", update=True)
        handle.update("third")""",
    "clear output": """
        from IPython.display import clear_output
        print("gone"); clear_output(); print("stays")
        clear_output(wait=True); display("only this")""",
    "progress": """
        from tqdm import tqdm
        for _i in tqdm(range(3), mininterval=0): pass""",
    "logging": """
        import logging
        logging.warning("careful"); logging.getLogger("a.b").error("wrong: %s", 1); logging.info("not shown")""",
    "warnings": """
        import warnings
        warnings.warn("old"); warnings.warn("deprecated", DeprecationWarning)""",
    "shell": "!echo from the shell {value['a'][0]} $value",
    "shell assignment": "lines = !printf 'a\\\\nb\\\\n'\nlines",
    # A session waits for a child's last words; ipykernel does not, and shows them if they come in time.
    "subprocess": """
        import subprocess, time
        done = subprocess.run(['sh', '-c', 'echo child; exit 3'])
        time.sleep(1)
        done""",
    "subprocess in trouble": "subprocess.run('echo trouble >&2', shell=True); time.sleep(1)",
    "timeit": "%timeit -n 2 -r 2 sum(range(10))",
    "cell magic": "%%capture caught\nprint('kept')",
    "cell magic's result": "caught.stdout",
    "bash": "%%bash\necho from bash\necho $((6 * 7)) >&2",
    "await": "import asyncio\nasync def later(x):\n    await asyncio.sleep(0.01)\n    return x\nawait later(7)",
    "tasks": "await asyncio.gather(*(later(i) for i in range(3)))",
    "class and function": """
        class Point:
            def __init__(self, x): self.x = x
            def __repr__(self): return f"Point({self.x})"
        def double(p): return Point(2 * p.x)""",
    "class and function used later": "point = double(Point(21))\npoint, type(point).__module__, double.__module__",
    "generators": "numbers = (n * n for n in range(4))\nnext(numbers), list(numbers)",
    "big array": "import numpy as np\nbig = np.arange(10**6).reshape(1000, 1000)\nbig",
    "unicode": "print('grüße 你好 🚀 \\x1b[31mred\\x1b[0m')\n'naïve \\u202e'",
    "exception": "def fail(n):\n    return 1 / n\n\nprint('before')\nfail(0)\nprint('never')",
    "chained exception": "try:\n    {}['k']\nexcept KeyError as e:\n    raise RuntimeError('outer') from e",
    "exception of its own": "class Own(Exception):\n    pass\n\nraise Own('mine', 3)",
    "syntax error": "x = 1\nif x\n    pass",
    "indentation error": "if True:\npass",
    "raised syntax error": "compile('a b', 'f', 'exec')",
    "system exit": "print('leaving')\nraise SystemExit(3)",
    "after system exit": "point",
    "usage error": "%nosuchmagic",
    "wrong option": "%timeit -q",
    "interrupt of its own": "raise KeyboardInterrupt",
    "failing script": "%run nosuchfile.py",
    "assertion": "assert value == 1, 'no'",
    "write without newline": "sys.stdout.write('no newline')",
    "print without flush": "print('a', end=' '); print('b', end='')",
    "rich repr": """
        class Rich:
            def _repr_html_(self): return "<i>rich</i>"
            def _repr_png_(self): raise ValueError("no picture")
        Rich()""",
    "thread": "import threading\nt = threading.Thread(target=print, args=['from a thread'])\nt.start(); t.join(); del t",
    "pager": "?len",
    "last line is a comment": "41 + 1\n# done",
}

PROBE = """
    for _k, _v in sorted(globals().items()):
        if not _k.startswith("__") and _k not in ("caught", "_i1", "exit", "quit", "_k", "_v"):
            print(_k, type(_v).__name__, repr(_v[2:] if _k in ("In", "_ih") else _v))"""
"""All names and values, but the first cell's, which connects."""


def dedent(text: str) -> str:
    """A sample's text as a cell's."""
    import textwrap

    return textwrap.dedent(text).strip("\n")


def notebook(cells: list[str]) -> Any:
    """A notebook of code cells."""
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    return made


def execute(cells: list[str], path: Any) -> list[list[dict[str, Any]]]:
    """Run the cells in a new kernel; return what each of them shows."""
    made = notebook(cells)
    client = NotebookClient(made, timeout=60, allow_errors=True, resources={"metadata": {"path": str(path)}})
    client.execute(env=environment())
    return [[dict(output) for output in cell.outputs] for cell in made.cells]


def plugged(host: HostProcess) -> str:
    """The cell that registers the magic."""
    return f"from tests.acceptance.plug import plug; plug({host.address!r}, {str(host.run_dir)!r})"


def joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs in which text that follows text of the same stream is one."""
    merged: list[dict[str, Any]] = []
    for output in outputs:
        if merged and output["output_type"] == "stream" and merged[-1].get("name") == output["name"]:
            merged[-1] = {**merged[-1], "text": merged[-1]["text"] + output["text"]}
        else:
            merged.append(output)
    return merged


def normal(outputs: list[dict[str, Any]]) -> str:
    """Outputs without memory addresses, timings and process ids, text in one piece as front ends show it."""
    text = repr(joined(outputs))
    text = re.sub(r"0x[0-9a-f]+", "0x…", text)
    text = re.sub(r"ipykernel_[0-9]+", "ipykernel_…", text)
    text = re.sub(r"[0-9.]+ [nμm]?s ± [0-9.]+ [nμm]?s", "… s ± … s", text)
    text = re.sub(r"The slowest run took [^\n]*?cached\.(\\n|\n)", "", text)  # where it did
    return re.sub(r"[0-9:]+<[0-9:?]+, +[0-9.?]+it/s\] *", "…it/s]", text)


@pytest.fixture(scope="module")
def both(host):
    """What the samples show without and with the magic: two notebooks of the same cells."""
    work = host.run_dir / "work"
    cells = [dedent(cell) for cell in [*SAMPLES.values(), PROBE]]
    # Where one has the magic's line the other has a comment; a cell magic must be the first line.
    plain = execute(["pass"] + [c if c.startswith("%%") else f"# %%hpc\n{c}" for c in cells], work)
    remote = execute([plugged(host)] + [f"%%hpc\n{c}" for c in cells], work)
    assert remote[0] == []
    return dict(zip([*SAMPLES, "namespace"], zip(plain[1:], remote[1:], strict=True), strict=True))


@pytest.mark.parametrize("name", [*SAMPLES, "namespace"])
def test_a_cell_shows_the_same_with_and_without_the_magic(both, name):
    """Each sample shows in a session what it shows in the notebook's own kernel."""
    plain, remote = both[name]
    assert normal(remote) == normal(plain)


def test_a_run_without_anybody_fails_where_it_would_have_had_to_ask(host):
    """nbclient, and so papermill, ends at the cell that asks, with a message that says why."""
    made = notebook([plugged(host), "%%hpc\nprint('before')", "%%hpc\ninput('continue? ')", "%%hpc\nprint('never')"])
    with pytest.raises(CellExecutionError, match="this frontend does not support input requests"):
        NotebookClient(made, timeout=60).execute(env=environment())
    assert [len(cell.outputs) for cell in made.cells] == [0, 1, 1, 0]
