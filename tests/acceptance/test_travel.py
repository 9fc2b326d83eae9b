"""What travels from a notebook to a task and back: its own code as it is now; what cannot is named."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import START, notebook_at_work

CELLS = """
import dataclasses, enum, threading
class Colour(enum.Enum):
    RED = 1
@dataclasses.dataclass
class Point:
    x: int
    colour: Colour = Colour.RED
class Model:
    rate = 2
    def fit(self, point):
        return Point(self.rate * point.x, point.colour)
class Sub(Model):
    def fit(self, point):
        return super().fit(point)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the notebook lies."""
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def notebook(folder):
    """A notebook with a cluster on this machine."""
    with notebook_at_work(folder) as notebook:
        notebook.run(CELLS)
        yield notebook


@pytest.fixture
def value(notebook):
    """Run a cell and give what it has printed; its error, as name and message, where it has one."""

    def value(code):
        cell = notebook.wait(notebook.send(code), START)
        return cell.text.strip() if cell.reply["status"] == "ok" else ": ".join(cell.error)

    return value


def test_what_is_defined_in_cells_travels_both_ways(value):
    """Dataclasses, enums, classes with their parents, methods: what comes back is of the notebook's own types."""
    assert value(
        "p = hpc.submit(Sub().fit, Point(3)).result()\nprint(p, type(p) is Point, p.colour is Colour.RED)"
    ) == ("Point(x=6, colour=<Colour.RED: 1>) True True")
    assert (
        value("q = hpc.gather(hpc.map(Model().fit, [Point(1), Point(2)]))\nprint(q[1].x, q[1].colour is Colour.RED)")
        == "4 True"
    )


@pytest.mark.parametrize("call", ["hpc.submit(g, 0)", "hpc.map(g, [0])[0]", "g(0)"])
def test_a_redefined_function_runs_as_it_is_now(value, call):
    """The cell is run again: with other code the next call runs that, which is said once; with the same code nothing is."""
    mark = "@hpc.task\n" if call == "g(0)" else ""
    name = {"h": "sent", "g": "called"}[call[0]] + str(len(call))
    for lines, number, said in (("", 1, False), ("", 1, False), ("# moved\n", 1, False), ("", 2, True), ("", 2, False)):
        cell = f"{lines}{mark}def g(x):\n    return x + {number}\nfor _ in range(2):\n    print({call}.result())"
        shown = value(cell.replace("g(", f"{name}(").replace("(g,", f"({name},"))
        notice = f"hpcnb: {name} is defined anew: this call and later ones run its new code, earlier ones keep theirs"
        assert sorted(shown.splitlines()) == sorted([*[notice] * said, str(number), str(number)])


def test_modules_beside_the_notebook_travel_by_value(value, folder):
    """After an edit and a reload the new code runs, with the module's own classes as arguments, whatever the worker has imported."""
    module = folder / "nearby.py"
    code = "import helper_nearby\nclass Box:\n    n = {n}\ndef f(box):\n    return box.n, box.extra, type(box).__name__, helper_nearby.g()\n"
    (folder / "helper_nearby.py").write_text("def g():\n    return 'helped'\n")
    module.write_text(code.format(n=1))
    ask = "b = nearby.Box()\nb.extra = 5\nprint(hpc.submit(nearby.f, b).result())"
    assert value(f"import importlib, nearby\n{ask}") == "(1, 5, 'Box', 'helped')"
    module.write_text(code.format(n=22))
    assert value(f"importlib.reload(nearby)\n{ask}") == "(22, 5, 'Box', 'helped')"
    assert value("print(hpc.gather(hpc.map(nearby.f, [b, b]))[1])") == "(22, 5, 'Box', 'helped')"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "guard = threading.Lock()\ndef f():\n    return guard\nhpc.submit(f)",
            "f → guard (_thread.lock) cannot be pickled",
        ),
        (
            "m = Model()\nm.parts = {'a': [1, threading.Lock()]}\nhpc.submit(abs, m)",
            "argument 0 of abs.parts['a'][1] (_thread.lock) cannot be pickled",
        ),
        ("hpc.submit(print, end=(n for n in 'ab'))", "argument end of print (generator) cannot be pickled"),
        ("hpc.map(print, [[1], [threading.Lock()]])", "(_thread.lock) cannot be pickled"),
        ("hpc.submit(m.fit, 1)", "fit.__self__.parts['a'][1] (_thread.lock) cannot be pickled"),
        (
            "def back():\n    return {'k': threading.Lock()}\nhpc.submit(back).result()",
            "what back returned['k'] (_thread.lock) cannot be",
        ),
    ],
)
def test_what_cannot_travel_is_named(value, code, message):
    """The error is raised where the call is made, and says which variable, which part of it, and what to do."""
    said = value(code)
    assert said.startswith("CannotSerialize: ")
    assert message in said
    assert "→ " in said


def test_a_large_capture_warns_once(notebook):
    """What a function brings along beyond 10 MB is named, once, with the way to send it but once."""
    code = "big = bytes(12_000_000)\ndef h(x):\n    return len(big) + x\n"
    texts = [notebook.wait(notebook.send(code + "print(hpc.submit(h, 1).result())"), START).text for _ in range(2)]
    assert "big (bytes, 12 MB) goes along with each call of h" in texts[0]
    assert "big = hpc.current().client.scatter(big)" in texts[0]
    assert "12000001\n" in texts[0]  # on another stream than the warning
    assert "goes along" not in texts[1]
    scattered = "s = hpc.current().client.scatter(big)\nprint(hpc.submit(len, s).result())"
    assert notebook.wait(notebook.send(scattered), START).text.count("12000000\n") == 1
