"""Finds where a name in a source file comes from: the file itself, an import, or the built-ins.

``source.py`` uses it and decides what is refused. A name counts as the file's own only where that
is certain. In a function it is: Python never falls back on a built-in for an unassigned local
variable, but raises an error.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

OWN = ""
"""Stands in place of a library's name for names that a function or the file itself binds."""

Functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
Comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True)
class Scope:
    """local: names bound in the enclosing functions, mapped to the library they are, or to OWN.
    imports: names imported by the file or an enclosing class, mapped to their library. since: names
    that a top-level statement binds for good, mapped to its last line."""

    local: Mapping[str, str]
    imports: Mapping[str, str]
    since: Mapping[str, int]

    def real(self, node: ast.Name) -> str | None:
        """Return the library that a name is, OWN, or None if the name may be a built-in."""
        if node.id in self.local:
            return self.local[node.id]
        return self.imports.get(node.id) or (OWN if self.bound(node) else None)

    def bound(self, node: ast.Name) -> bool:
        """Return whether a name cannot be a built-in. A top-level name can before it is bound."""
        return node.id in self.local or node.lineno > self.since.get(node.id, node.lineno)


def running(tree: ast.Module) -> Iterator[tuple[ast.AST, Scope]]:
    """Yield every node that runs when the file is imported, with its scope.

    The block of ``if __name__ == "__main__":`` is left out, because the shell imports the file.
    """
    nodes = list(_within(tree.body))
    imports = dict(pair for node in nodes for pair in imported(node))
    yield from _visit(tree.body, Scope({}, imports, _bound_for_good(tree)), {}, top=True)


def imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the local and the real name of each module or member that a statement imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.split(".")[0]
            yield alias.asname or name, name
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _visit(
    nodes: Iterable[ast.AST], scope: Scope, around: Mapping[str, str], *, top: bool = False
) -> Iterator[tuple[ast.AST, Scope]]:
    """``around``: names of the enclosing functions, which methods see; class names are left out."""
    for node in nodes:
        if top and _is_main_block(node):
            yield from _visit(node.orelse, scope, around)  # type: ignore[attr-defined]
            continue
        yield node, scope
        if isinstance(node, Functions):
            body = node.body if isinstance(node.body, list) else [node.body]
            inner = {**around, **_bound(body, node.args)}
            outside = [n for n in ast.iter_child_nodes(node) if n not in body]
            yield from _visit(outside, scope, around)
            yield from _visit(body, Scope(inner, scope.imports, scope.since), inner)
        elif isinstance(node, ast.ClassDef):
            own = _bound(node.body)
            seen = {name: real for name, real in around.items() if name not in own}
            imports = {**scope.imports, **{k: v for k, v in own.items() if v}}
            outside = [n for n in ast.iter_child_nodes(node) if n not in node.body]
            yield from _visit(outside, scope, around)
            inside = Scope(seen, imports, {k: v for k, v in scope.since.items() if k not in own})
            yield from _visit(node.body, inside, around)
        elif isinstance(node, Comprehensions):
            targets = {t.id for g in node.generators for t in _stores(g.target)}
            inner = {**scope.local, **dict.fromkeys(targets, OWN)}
            first = node.generators[0].iter
            yield from _visit([first], scope, around)
            rest = [n for n in ast.iter_child_nodes(node) if n is not node.generators[0]]
            inside = Scope(inner, scope.imports, scope.since)
            generator = node.generators[0]
            yield generator, inside
            yield from _visit([generator.target, *generator.ifs, *rest], inside, inner)
        else:
            yield from _visit(ast.iter_child_nodes(node), scope, around)


def _is_main_block(node: ast.AST) -> bool:
    match node:
        case ast.If(
            test=ast.Compare(
                left=ast.Name(id="__name__"),
                ops=[ast.Eq()],
                comparators=[ast.Constant(value="__main__")],
            )
        ):
            return True
    return False


def _bound(body: Iterable[ast.AST], args: ast.arguments | None = None) -> dict[str, str]:
    """Return the names that a function or class binds, mapped to their library or to OWN."""
    found: dict[str, str] = {}
    elsewhere: set[str] = set()
    for node in _within(body):
        found |= dict.fromkeys(names(node), OWN)
        if isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere.update(node.names)
    if args:
        for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
            found |= {arg.arg: OWN} if arg else {}
    for node in _within(body):
        found |= imported(node)
    return {name: real for name, real in found.items() if name not in elsewhere}


def _bound_for_good(tree: ast.Module) -> dict[str, int]:
    """Return the names that top-level statements bind and nothing unbinds, with the last line."""
    found: dict[str, int] = {}
    for node in tree.body:
        bound = [name for name, _ in imported(node)]
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                bound = [node.name]
            case ast.Assign(targets=targets):
                bound = [t.id for t in targets if isinstance(t, ast.Name)]
        for name in bound:
            found.setdefault(name, node.end_lineno or node.lineno)
    for anywhere in ast.walk(tree):
        match anywhere:
            case ast.Global(names=names):
                gone = names
            case ast.Delete(targets=targets):
                gone = [t.id for t in targets if isinstance(t, ast.Name)]
            case ast.ExceptHandler(name=str(name)):
                gone = [name]
            case _:
                continue
        for name in gone:
            found.pop(name, None)
    return found


def _within(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of one scope. Functions and classes are yielded, but not their contents."""
    waiting = [n for n in body if not _is_main_block(n)]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*Functions, *Comprehensions, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)


def names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node binds, except by an import."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield name
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name


def _stores(target: ast.expr) -> Iterator[ast.Name]:
    return (n for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
