"""The body of a `--each` cell as a function of one element."""

from __future__ import annotations

import ast
import asyncio
import pickle
import weakref

import numpy as np
import pytest
from cloudpickle import cloudpickle

from hpcnb.errors import CannotSerialize, TaskError
from hpcnb.pilot.values import pack
from hpcnb.pilot.worker import element
from hpcnb.pilot.worker.element import Body


def body(text, **options):
    """As it arrives at a worker."""
    code = compile(text, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return pickle.loads(cloudpickle.dumps(Body(code, targets=options.pop("targets", ("x",)), **options)))


def frames(**values):
    """Variables on their way."""
    return tuple(map(bytes, pack(values)))


def typed(text):
    """What a cell has defined."""
    namespace = {"__name__": "__main__"}
    exec(text, namespace)
    return namespace


def test_values_are_given_in_the_shape_in_which_they_are_wanted():
    """One bare, several as a tuple; without any, nothing."""
    assert body("y = x * 2", outputs=("y",))((), 4) == 8
    assert body("y = x * 2", outputs=("y", "x"))((), 4) == (8, 4)
    assert body("y = x * 2")((), 4) is None
    assert body("s = a + b", targets=("a", "b"), outputs=("s",))((), 1, 2) == 3


def test_a_name_that_was_not_set_is_named():
    """Also where an element before it has set it."""
    made = body("if x: y = z = 1", outputs=("y", "z"))
    assert made((), 1) == (1, 1)
    with pytest.raises(TaskError, match="this element has not set y, z"):
        made((), 0)


def test_the_body_runs_as_a_cell_does():
    """Functions see what stands around them, also each other; `global`, classes and comprehensions work."""
    text = "k = 2\ndef even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\n"
    text += "def put():\n    global y\n    y = [k * i for i in range(x) if even(i)]\n    class C:\n        z = [k + j for j in y]\n    return C.z\nput()"
    assert body(text, outputs=("y",))((), 5) == [0, 4, 8]


def test_an_await_of_the_body_is_awaited():
    """What comes is a coroutine then, whose value is that of the element."""
    assert asyncio.run(body("import asyncio\nawait asyncio.sleep(0)\ny = x + 1", outputs=("y",))((), 1)) == 2


def test_elements_see_nothing_of_each_other():
    """Neither names nor what was changed in a variable that was sent."""
    made = body(
        "seen.append(x)\nfirst = 'mine' not in globals()\nmine = 1", inputs=("seen",), outputs=("seen", "first")
    )
    sent = frames(seen=[])
    assert [made(sent, x) for x in range(3)] == [([0], True), ([1], True), ([2], True)]


def test_variables_that_came_with_the_body_are_made_anew_as_well():
    """Also what lies in buffers, which several elements have before them."""
    made = body("grid[0] += x\ny = int(grid[0])", inputs=("grid",), outputs=("y",))
    made.frames = frames(grid=np.zeros(3))
    assert [made((), x) for x in (1, 2, 3)] == [1, 2, 3]


def test_functions_of_the_notebook_live_in_the_namespace():
    """As in a session: they bring the globals that they need, and see those that the body sets."""
    f = typed("base = 10\ndef f(x): return x + base")["f"]
    assert body("y = f(x)", inputs=("f",), outputs=("y",))(frames(f=f), 1) == 11
    assert body("base = 20\ny = f(x)", inputs=("f",), outputs=("y",))(frames(f=f), 1) == 21


def test_the_element_counts_more_than_a_variable_of_its_name():
    """A function's global does not replace it."""
    f = typed("x = 'global'\ndef f(): return x")["f"]
    assert body("y = f()", inputs=("f",), outputs=("y",))(frames(f=f), "element") == "element"


def test_what_cannot_be_rebuilt_is_named():
    """With what went wrong: a package may not be there."""
    with pytest.raises(CannotSerialize, match="model cannot be rebuilt on the worker: ModuleNotFoundError: No module"):
        body("model", inputs=("model",))((b"cnot_there_at_all\nModel\n.",), 1)


def test_large_variables_do_not_pile_up(monkeypatch):
    """A namespace that is a circle through its functions is gone before the next one is made."""
    monkeypatch.setattr(element, "LARGE", 10)
    alive = []

    class Big:
        def __init__(self):
            alive.append(weakref.ref(self))

        def __reduce__(self):
            return Big, ()

    monkeypatch.setattr(element, "unpack", lambda *_: {"big": Big()})
    made = body("def circle(): return big\ny = 1", inputs=("big",), outputs=("y",))
    for x in range(3):
        made((b"x" * 100,), x)
    assert [one() is None for one in alive] == [True, True, False]


@pytest.mark.parametrize(("targets", "name"), [(("seed",), "seed"), (("a", "b"), "a,b"), (("_", "b"), "element")])
def test_tasks_are_named_after_what_an_element_binds(targets, name):
    """So far as Dask can read a name from a key."""
    from dask.utils import funcname, key_split

    made = body("pass", targets=targets)
    assert funcname(made) == name
    assert key_split(f"{funcname(made)}-4ad9f55e-0c5d-4b29-8ef2-6f7c8e1aa0ff") == name
