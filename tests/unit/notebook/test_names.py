"""Which names a cell reads before it binds them, and which it binds."""

from __future__ import annotations

import builtins

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.notebook.names import Names, analyse

BUILTINS = frozenset(dir(builtins))

READS = {
    # plain statements
    "a + b": "a b",
    "x = a; x": "a",
    "x += 1": "x",
    "x[i] = v": "x i v",
    "x.attr = v": "x v",
    "a = b = c": "c",
    "(x := y) + x": "y",
    "del x": "x",
    "x = 1; del x; x": "",
    "f(*args, k=v, **kw)": "f args v kw",
    "f'{u!r:{w}} {p=}'": "u w p",
    "x: T = v": "T v",
    "x: T": "T",
    "print(len(data))": "data",
    # imports
    "import a.b.c; a": "",
    "import a.b as c; c": "",
    "from m import n as o; o, n": "n",
    "from m import *; z": "z",
    # branches
    "if c: x = 1\nelse: x = 2\nx": "c",
    "if c: x = 1\nx": "c x",
    "x = 1 if c else y": "c y",
    "c and (x := 1)\nx": "c x",
    "for i in items: s = i\ns, i": "items s i",
    "while c:\n  x = 1\nelse:\n  y = 1\nx, y": "c x y",
    "try:\n  x = f()\nexcept E as e:\n  x = e\nx": "f E",
    "try:\n  x = f()\nexcept E:\n  pass\nx": "f E x",
    "try:\n  x = f()\nfinally:\n  y = 1\nx, y": "f",
    "with open(p) as f, g(): f": "p g",
    "match v:\n  case [a, *b]: a, b\n  case {'k': c, **d}: c, d\n  case P(e) if e: e\n  case _: z": "v P z",
    "match v:\n  case 1: x = 1\n  case _: x = 2\nx": "v",
    "match v:\n  case 1: x = 1\nx": "v x",
    # scopes
    "[i * k for i in items if i > m]": "items k m",
    "{i: j for i, j in a for l in b}; i": "a b i",
    "sum(x for x in x)": "x",
    "[(y := i) for i in a]; y": "a y",
    "lambda a, b=c: a + b + d": "c d",
    "def f(a, *b, c: T = d, **e) -> R: return a, b, c, e, g": "T d R g",
    "def f(): return g()\ndef g(): return h\nf()": "h",
    "def f(): return x\nx = 1\nf()": "",
    "def f(): return x\nf()\nx = 1": "x",
    "def f(n): return f(n - 1) if n else 0": "",
    "def f():\n  x = 1\n  def g(): return x + y\n  return g": "y",
    "def f():\n  import os\n  return os, [i for i in a]": "a",
    "def f():\n  global n\n  n += 1": "n",
    "@d\ndef f(): return x\nx = 1": "d x",
    "async def f():\n  async with a as b: await b\nawait f()": "a",
    "class A(B, metaclass=M):\n  x = y\n  z = x\n  def m(self): return A, q, self.x": "B M y q",
    "class A:\n  n = n": "n",
    # magics
    "%timeit -n 10 -r3 f(x)": "f x",
    "%time y = f(x)\ny": "f x",
    "%prun -s cumulative f(x)": "f x",
    "%%timeit s = g(1)\nf(s, x)": "g f x",
    "%%time\nf(x)": "f x",
    "%%capture out\nprint(x)": "x",
    "%%bash\necho x": "",
    "%%writefile {name}\ntext": "name",
    "!echo {a[0]} $b $$ {c.d}": "a b c",
    "files = !ls {path}\nfiles": "path",
    "%cd {where}": "where",
    "thing.attr?": "thing",
    "%matplotlib inline": "",
    "%run script.py": "",
}

BINDS = {
    "x = 1; y: int = 2; z: int": "x y",
    "import a.b, c as d\nfrom e import f, g as h": "a d f h",
    "for i in []: j = 1": "i j",
    "def f(): x = 1\nclass C: y = 1": "f C",
    "[(y := i) for i in []]": "y",
    "with a as b: pass": "b",
    "%time x = 1": "x",
    "%%capture caught\ny = 1": "caught y",
    "lines = !ls": "lines",
    "(a, [b, *c]) = v; d.e = 1; f[0] = 1": "a b c",
}


@pytest.mark.parametrize(("cell", "names"), READS.items())
def test_what_a_cell_reads(cell, names):
    """Names that must come from elsewhere, and no others."""
    assert analyse(cell).reads - BUILTINS == set(names.split())


@pytest.mark.parametrize(("cell", "names"), BINDS.items())
def test_what_a_cell_binds(cell, names):
    """Names that the namespace has afterwards."""
    assert analyse(cell).binds == set(names.split())


@pytest.mark.parametrize("cell", ["", "\n\n", "# comment", "if x\n  y", "%%", "x = ", "\x00", "(" * 5000])
def test_what_is_no_python_reads_nothing(cell):
    """A cell that does not parse is the session's to complain about."""
    assert analyse(cell) == Names()


def test_built_in_names_are_read_too():
    """The notebook may have its own `list`."""
    assert analyse("list(x)").reads == {"list", "x"}


@given(st.text())
def test_no_text_is_too_strange(cell):
    """Whatever is typed, the analysis does not fail."""
    analyse(cell)
