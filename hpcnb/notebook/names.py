"""Which names a cell reads before it binds them, and which it binds: pure analysis of its text."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from IPython.core.inputtransformer2 import TransformerManager

__all__ = ["Names", "analyse"]

LINE_MAGICS = frozenset({"time", "timeit", "prun", "memit", "pinfo", "pinfo2", "psource"})
CELL_MAGICS = frozenset({"time", "timeit", "prun", "memit", "capture"})
"""Those whose argument or body is Python."""
_OPTIONS = re.compile(r"^(?:\s*-(?:[slTD]\s+\S+|[A-Za-z]+(?:\s*[0-9]+)?)(?=\s|$))+")
_EXPANSION = re.compile(r"\{([^{}]+)\}|\$([A-Za-z_]\w*)")


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a cell asks of the namespace it runs in.

    Parameters
    ----------
    reads : frozenset of str
        Read on some path before the cell has certainly bound them, built-in names included: the notebook may
        have given them another meaning.
    binds : frozenset of str
        Bound on some path.
    """

    reads: frozenset[str] = frozenset()
    binds: frozenset[str] = frozenset()


def analyse(cell: str) -> Names:
    r"""Return the names that a cell reads and binds; nothing for a cell that does not parse.

    Examples
    --------
    >>> analyse("total = 0\nfor x in data: total += f(x)").reads == {"data", "f"}
    True
    """
    flow = _Flow()
    try:
        with warnings.catch_warnings(action="ignore"):
            flow.cell(cell)
    except (SyntaxError, ValueError, RecursionError):
        return Names()  # the session says what is wrong with it, in its own words
    return Names(reads=frozenset(flow.finish()), binds=frozenset(flow.binds))


class _Flow(ast.NodeVisitor):
    """Walks a module's statements in the order in which they run.

    `bound` holds what is certainly bound at this point. A function's body runs when the function is first used,
    so what it needs is kept in `deferred` until its name is read.
    """

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.binds: set[str] = set()
        self.bound: set[str] = set()
        self.deferred: dict[str, set[str]] = {}

    def cell(self, text: str) -> None:
        for statement in ast.parse(_as_python(text)).body:
            self.visit(statement)

    def finish(self) -> set[str]:
        for name in list(self.deferred):
            self._use(name)
        return self.reads

    def read(self, name: str) -> None:
        if name not in self.bound:
            self.reads.add(name)
        self._use(name)

    def _use(self, name: str) -> None:
        for needed in self.deferred.pop(name, ()):
            self.read(needed)

    def bind(self, name: str) -> None:
        self.binds.add(name)
        self.bound.add(name)

    # -- names ---------------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.read(node.id)
        elif isinstance(node.ctx, ast.Del):
            self.read(node.id)
            self.bound.add(node.id)  # gone on purpose: nobody sends it again
        else:
            self.bind(node.id)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.bind(alias.asname or alias.name.partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name != "*":
                self.bind(alias.asname or alias.name)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self.generic_visit(node)
        if node.name:
            self.bind(node.name)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self.bind(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        if node.rest:
            self.bind(node.rest)

    # -- statements whose order of evaluation is not that of their text ---------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.read(node.target.id)
        self.visit(node.value)
        self.visit(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)
        elif not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.visit(node.target)

    # -- branches: only what every path binds is certain afterwards -----------------------------------------

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self._either([node.body], [node.orelse])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self._either([[node.body]], [[node.orelse]])

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        self._either([node.values[1:]], [])

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self._either([[node.target], node.body], [])
        self._either([node.orelse], [])

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self._either([node.body], [])
        self._either([node.orelse], [])

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        before = set(self.bound)
        self._all(node.body)
        self._all(node.orelse)
        outcomes = [self.bound]
        for handler in node.handlers:
            self.bound = set(before)
            self.visit(handler)
            outcomes.append(self.bound)
        self.bound = set.intersection(*outcomes)
        self._all(node.finalbody)

    visit_TryStar = visit_Try  # noqa: N815

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            self.bound.add(node.name)
        self._all(node.body)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        certain = any(case.guard is None and _matches_all(case.pattern) for case in node.cases)
        paths: list[list[Sequence[ast.AST]]] = [
            [[case.pattern], [case.guard] if case.guard else [], case.body] for case in node.cases
        ]
        self._either(*paths, *([] if certain else [[]]))

    def _either(self, *paths: Iterable[Sequence[ast.AST]]) -> None:
        before, outcomes = self.bound, []
        for path in paths:
            self.bound = set(before)
            for nodes in path:
                self._all(nodes)
            outcomes.append(self.bound)
        self.bound = set.intersection(*outcomes)

    def _all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    # -- scopes ----------------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._all([*node.decorator_list, *_outside(node.args)])
        if node.returns is not None:
            self.visit(node.returns)
        needs = _free(node)
        self.bind(node.name)
        if node.decorator_list:  # a decorator may call it at once
            for name in needs:
                self.read(name)
        else:
            self.deferred[node.name] = needs

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._all(_outside(node.args))
        for name in _free(node):
            self.read(name)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._all([*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)])
        inner = _Flow()
        inner.bound = set(self.bound)
        for statement in node.body:
            inner.visit(statement)
        methods = set().union(*inner.deferred.values()) - {node.name} if inner.deferred else set()
        for name in inner.reads:
            self.read(name)
        self.bind(node.name)
        self.deferred[node.name] = methods

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._comprehension(node.generators, [node.elt])

    visit_SetComp = visit_GeneratorExp = visit_ListComp  # noqa: N815

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node.generators, [node.key, node.value])

    def _comprehension(self, generators: list[ast.comprehension], elements: list[ast.expr]) -> None:
        inner = _Flow()
        inner.bound = set(self.bound)
        inner.deferred = self.deferred
        for generator in generators:
            inner._all([generator.iter, generator.target, *generator.ifs])
        inner._all(elements)
        self.reads |= inner.reads
        # Only the names of `:=` leave a comprehension, and it may have had nothing to go through.
        self.binds |= {walrus.target.id for part in elements for walrus in _walruses(part)}

    # -- what IPython made of magics and shell lines -----------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        if _is_magic(node):
            arguments = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            self._magic(node.func.attr if isinstance(node.func, ast.Attribute) else "", arguments)
        else:
            self.generic_visit(node)

    def _magic(self, kind: str, arguments: list[str]) -> None:
        name, line, *body = [*arguments, "", ""][:3] if kind == "run_cell_magic" else [*arguments, ""][:2]
        if kind not in ("run_line_magic", "run_cell_magic"):
            self._expansions(name)
            return
        python = name in (CELL_MAGICS if body else LINE_MAGICS)
        self._expansions(line)
        if not python:
            return
        if name == "capture":
            self.binds.update(word for word in line.split() if word.isidentifier())
        else:
            self._python(_OPTIONS.sub("", line))
        for text in body:
            self._python(text)

    def _expansions(self, text: str) -> None:
        for match in _EXPANSION.finditer(text):
            self._python(match[1] or match[2])

    def _python(self, text: str) -> None:
        try:
            self.cell(text.strip())
        except SyntaxError:
            pass  # not Python after all; the magic knows what it wants


def _as_python(cell: str) -> str:
    transform: Callable[[str], str] = TransformerManager().transform_cell
    return transform(cell)


def _outside(arguments: ast.arguments) -> Iterator[ast.expr]:
    """What a function's head evaluates where it stands: defaults and annotations."""
    yield from arguments.defaults
    yield from (default for default in arguments.kw_defaults if default is not None)
    yield from (a.annotation for a in _parameters(arguments) if a.annotation is not None)


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    extra = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]


def _free(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """The names that a function's body takes from outside of it."""
    body = function.body if isinstance(function.body, list) else [function.body]
    declared = {name for node in _own(body) if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    flow = _Flow()
    for statement in body:
        flow.visit(statement)
    local = (flow.binds - declared) | {a.arg for a in _parameters(function.args)}
    needs = flow.finish() - local
    return needs - {function.name} if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) else needs


def _own(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own(list(ast.iter_child_nodes(node)))


def _walruses(node: ast.AST) -> Iterator[ast.NamedExpr]:
    return (found for found in ast.walk(node) if isinstance(found, ast.NamedExpr))


def _matches_all(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None


def _is_magic(node: ast.Call) -> bool:
    function = node.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in ("run_line_magic", "run_cell_magic", "system", "getoutput")
        and isinstance(function.value, ast.Call)
        and isinstance(function.value.func, ast.Name)
        and function.value.func.id == "get_ipython"
    )
