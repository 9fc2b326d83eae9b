"""The clause of `--each`: what is read, what is refused, and which elements come of it."""

from __future__ import annotations

import itertools

import pytest
from IPython.core.error import UsageError

from hpcnb.notebook import clause
from hpcnb.notebook.clause import read


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("seed in range(3)", ("seed",), [(0,), (1,), (2,)]),
        ("a, b in zip(x, 'uv')", ("a", "b"), [(1, "u"), (2, "v")]),
        ("(a, [b, *rest]) in [(1, (2, 3, 4))]", ("a", "b", "rest"), [(1, 2, [3, 4])]),
        ("_, b in zip(x, x)", ("_", "b"), [(1, 1), (2, 2)]),
        ("k in (y * scale for y in x)", ("k",), [(10,), (20,)]),
        ("k in {'u': 1}", ("k",), [("u",)]),
        ("k in 1, 2", ("k",), [(1,), (2,)]),
        (" größe in [f'{k}' for k in x] ", ("größe",), [("1",), ("2",)]),
        ("k in []", ("k",), []),
        ("k in zip(itertools.count(), x)", ("k",), [((0, 1),), ((1, 2),)]),
    ],
)
def test_a_clause_is_read(text, names, rows):
    """Targets and iterables of whatever shape, evaluated in a namespace."""
    found = read(text)
    assert found.names == names
    assert found.rows({"x": [1, 2], "scale": 10, "itertools": itertools}) == rows


@pytest.mark.parametrize(
    "text",
    [
        "",
        "range(3)",
        "x = 3",
        "seed in",
        "in xs",
        "x in xs if x",
        "x in xs: print(x)",
        "x in xs:\n  y()\nfor z in xs",
        "x in xs: pass\nelse",
        "a.b in xs",
        "a[0] in xs",
        "() in xs",
        "1 in xs",
        "x in xs for y in ys",
        "x in await xs",
        "x in (yield)",
        "*x in xs",
        "*a, *b in xs",
    ],
)
def test_what_is_no_clause_is_refused(text):
    """The error shows what one looks like."""
    with pytest.raises(UsageError, match='--each takes what stands between .* as in --each "seed in range.100."'):
        read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x in 3", "'int' object is not iterable"),
        ("a, b in [(1, 2), (3,)]", r"element 1: not enough values to unpack \(expected 2, got 1\)"),
        ("a, b in range(3)", "element 0: cannot unpack non-iterable int object"),
        ("x in itertools.count()", "more than 100 elements, or no end"),
        ("x in itertools.repeat(1)", "more than 100 elements, or no end"),
        ("x in range(10**30)", "more than 100 elements, or no end"),
    ],
)
def test_what_cannot_be_iterated_over_is_refused(monkeypatch, text, message):
    """The error says what it is, and of which element."""
    monkeypatch.setattr(clause, "MOST", 100)
    with pytest.raises(UsageError, match=message) as caught:
        read(text).rows({"itertools": itertools})
    assert "Nothing was submitted" in str(caught.value)


def test_as_many_elements_as_may_be_are_taken(monkeypatch):
    """The limit itself is no error."""
    monkeypatch.setattr(clause, "MOST", 100)
    assert len(read("x in range(100)").rows({})) == 100


def test_what_the_iterable_raises_keeps_its_type_and_its_line():
    """It is shown without our own frames, and says where it comes from."""
    namespace = {}
    exec(compile("def odd():\n    yield 1\n    raise KeyError('no')", "cell", "exec"), namespace)
    with pytest.raises(KeyError) as caught:
        read("x in odd()").rows(namespace)
    text = "".join(caught.value._render_traceback_())
    assert 'File "cell", line 3, in odd' in text
    assert "clause.py" not in text
    assert 'in --each "x in odd()"; nothing was submitted' in text
    with pytest.raises(NameError, match="missing"):
        read("x in missing").rows({})
