"""Static check of a submission's source: parses it and reports what it uses, without running it.

Runs as a separate process (``submission.READER``), because deep nesting can crash the parser,
which must not crash the judge. It prints one JSON object: ``hyperparameters`` (a dict, null if
there are none, or a sentence about what is wrong), ``reaches`` (line, words, and what to write
instead) and ``constant_bytes``; or ``{"syntax": …}``. ``submission.py`` decides what is rejected.

``reaches`` lists uses of what a mechanism does not need: files, processes, the interpreter's
internals, gradients and optimisers. Such a list cannot be complete, because torch is large and
Python is dynamic. So it matches names wherever they appear (``allowed.py``), and it is not a
security barrier: the sandbox is. Its purpose is that a model cannot train in another way than the
fixed shell without being noticed.
"""

import ast
import json
import sys
import zlib
from collections.abc import Iterator
from typing import Any

from scorers import allowed, scopes
from scorers.scopes import OWN, Scope

LOADERS = ("triton.language", "self")
"""Objects whose ``load`` may be used: kernels need ``tl.load``; on other objects it reads files."""

SETTINGS = ("torch", "backends")
"""The part of a library that may be assigned to."""

LONG_NAME = 40
"""Characters. A longer identifier counts as a constant, because names can carry data too."""

GETTERS = frozenset({"getattr", "setattr"})
"""Functions that may only be called; see ``_Reader._bad_getter`` for their arguments."""

CONFIGURED = frozenset({"level", "format", "datefmt", "style", "force"})
"""Allowed arguments of ``logging.basicConfig``: the others name files and handlers."""

HANDLERS = frozenset({"logging.StreamHandler", "logging.NullHandler"})

Found = tuple[int, str, str]
Words = tuple[str, str]


def reaches(tree: ast.Module) -> list[Found]:
    """Return (line, words, what to write instead) for each use that a mechanism does not need."""
    reader = _Reader(tree)
    found: set[Found] = set()
    for node, scope in scopes.running(tree):
        for words, instead in reader.reached(node, scope):
            found.add((getattr(node, "lineno", 0), words, instead))
    return sorted(found)


class _Reader:
    """Checks nodes with knowledge of the whole file: parent nodes, and calls that pass names on."""

    def __init__(self, tree: ast.Module) -> None:
        nodes = list(ast.walk(tree))
        self.parents = {id(child): n for n in nodes for child in ast.iter_child_nodes(n)}
        self.passing = {id(call) for n in nodes for call in _passing_on(n)}

    def reached(self, node: ast.AST, scope: Scope) -> Iterator[Words]:
        """Yield what is refused in one node, and what to write instead."""
        # The block of ``__name__ == "__main__"`` is skipped, so nothing may change that name.
        if "__name__" in (getattr(node, field, "") for field in ("name", "asname", "rest")):
            yield "`__name__ = …`", allowed.DUNDER
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from _bad_import(node)
            case ast.Name():
                yield from self._bad_name(node, scope)
            case ast.Attribute():
                yield from self._bad_attribute(node, scope)
            case ast.MatchClass(kwd_attrs=names):
                yield from (w for name in names for w in _forbidden(name, f"`{name}`"))
            case ast.Call(func=ast.Name(id=name)) if name in GETTERS:
                yield from self._bad_getter(name, node, scope)

    def _bad_name(self, node: ast.Name, scope: Scope) -> Iterator[Words]:
        name, parent, real = node.id, self.parents[id(node)], scope.real(node)
        if _hidden(name):
            fine = allowed.DUNDERS if isinstance(node.ctx, ast.Load) else allowed.SET
            if name not in fine:
                yield f"`{name}`", allowed.DUNDER
        elif not isinstance(node.ctx, ast.Load) or real == OWN:
            return
        elif (rule := allowed.rule(name, allowed.BUILTINS)) and not scope.bound(node):
            yield f"`{name}`", rule.instead
        elif name in GETTERS and not _calls(parent, node):
            yield f"`{name}`", allowed.GETTER
        elif real in allowed.STANDARD and not isinstance(parent, ast.Attribute):
            yield f"`{name}` as a value", allowed.MEMBERS

    def _bad_attribute(self, node: ast.Attribute, scope: Scope) -> Iterator[Words]:
        name, parent = node.attr, self.parents[id(node)]
        real = _real(node, scope)
        known, written = bool(real[0]), f"`{'.'.join(_chain(node))}`"
        if _hidden(name):
            if not self._fine_dunder(node):
                yield written, allowed.DUNDER
        elif rule := allowed.rule(name, allowed.NAMED_MODULES):
            if known or not _unlike_a_module(parent, node):
                yield written, rule.instead
        elif name == "load":
            if ".".join(real[:-1] if known else _chain(node)[:-1]) not in LOADERS:
                yield written, allowed.LOADING.instead
        elif known and name in allowed.WRITING.words:
            yield written, allowed.WRITING.instead
        elif known and real[1].startswith("_"):
            yield written, allowed.PRIVATE
        elif known and not _documented(real):
            yield written, allowed.MEMBERS
        elif name in ("basicConfig", "dictConfig"):
            if not (_calls(parent, node) and _harmless_logging(name, parent)):
                yield written, allowed.LOGGING
        elif known and ".".join(real) in allowed.STANDARD:
            if not isinstance(parent, ast.Attribute):
                yield f"{written} as a value", allowed.MEMBERS
        elif known and not isinstance(node.ctx, ast.Load) and tuple(real[:2]) != SETTINGS:
            yield f"{written} = …, which changes a library", allowed.CHANGED
        else:
            yield from _forbidden(name, written)

    def _fine_dunder(self, node: ast.Attribute) -> bool:
        """Return whether a name with double underscores gives access to the object itself only."""
        name, call = node.attr, self.parents[id(node)]
        match node.value:
            case ast.Call(func=ast.Name(id="super"), args=[]) if name in allowed.OF_SUPER:
                reads = name in ("__getattr__", "__getattribute__") and self.passing
                return not reads or id(call) in self.passing
            case ast.Name(id="object") if name == "__setattr__" and isinstance(call, ast.Call):
                return bool(call.args[:1]) and _is_self(call.args[0])
        return name in allowed.DUNDERS

    def _bad_getter(self, name: str, call: ast.Call, scope: Scope) -> Iterator[Words]:
        if len(call.args) < 2 or any(isinstance(a, ast.Starred) for a in call.args):
            yield f"`{name}` without plain arguments", allowed.GETTER
            return
        target, attribute = call.args[:2]
        real = _real(target, scope)
        if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
            written = f"`{name}(…, {attribute.value!r})`"
            known, word = bool(real[0]), attribute.value
            if known and name == "setattr":
                yield written, allowed.CHANGED
            elif known and word.startswith("_"):
                yield written, allowed.PRIVATE
            elif known and word in allowed.WRITING.words:
                yield written, allowed.WRITING.instead
            elif not (word == "load" and _is_self(target)):
                yield from _forbidden(word, written)
        elif id(call) in self.passing or (name == "getattr" and ".".join(real) in allowed.BY_NAME):
            return
        elif not _is_self(target) or (name == "getattr" and self.passing):
            yield f"`{name}` with a computed name", allowed.GETTER


def _bad_import(node: ast.Import | ast.ImportFrom) -> Iterator[Words]:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    if isinstance(node, ast.ImportFrom) and (node.level or node.module is None):
        yield "a relative import", "all of it into one file"
        return
    for alias in node.names:
        written, whole = f"`import {prefix}{alias.name}`", prefix + alias.name
        top, *rest = whole.split(".")
        if top in allowed.PACKAGES:
            if rest[-1:] == ["*"]:
                yield written, "the names that you use"
            elif allowed.WRITING.words.intersection(rest[-1:]):
                yield written, allowed.WRITING.instead
            else:
                yield from (found for part in rest for found in _forbidden(part, written))
        elif whole in allowed.STANDARD:
            continue
        elif top not in allowed.STANDARD:
            yield written, allowed.IMPORTS
        elif prefix and whole.endswith(("basicConfig", "dictConfig")):
            yield written, allowed.LOGGING
        elif not (prefix and _documented(whole.split("."))) or alias.name == "*":
            yield written, allowed.MEMBERS
        else:
            yield from _forbidden(alias.name, written)


def _forbidden(name: str, written: str) -> Iterator[Words]:
    """Yield what is refused of an attribute of that name, whatever object it belongs to."""
    rule = allowed.rule(name, allowed.ATTRIBUTES)
    if rule:
        yield written, rule.instead
    elif _hidden(name) and name not in allowed.DUNDERS:
        yield written, allowed.DUNDER


def _documented(real: list[str]) -> bool:
    """Return False for a dotted name with an undocumented member of a standard-library module."""
    for end in range(len(real), 0, -1):
        if (module := ".".join(real[:end])) in allowed.STANDARD:
            return end == len(real) or allowed.member(module, real[end])
    return True


def _unlike_a_module(parent: ast.AST | None, node: ast.Attribute) -> bool:
    """Return whether an attribute is used as a module cannot be, or is only assigned to.

    Calling, indexing or looping over a module is an error, so an attribute used in this way does
    not hold a module.
    """
    if not isinstance(node.ctx, ast.Load):
        return not isinstance(parent, ast.AugAssign)  # ``+=`` also reads the attribute
    match parent:
        case ast.Call(func=used) | ast.Subscript(value=used, ctx=ast.Load()):
            return used is node
        case ast.For(iter=used) | ast.comprehension(iter=used):
            return used is node
    return False


def _harmless_logging(name: str, call: ast.AST | None) -> bool:
    """Return whether a call that sets up logging names no file and no class but stream handlers."""
    if not isinstance(call, ast.Call):
        return False
    if name == "basicConfig":
        return not call.args and {word.arg for word in call.keywords} <= CONFIGURED
    try:
        (config,) = [ast.literal_eval(argument) for argument in call.args]
    except ValueError:
        return False
    return not call.keywords and _plain_handlers(config)


def _plain_handlers(value: object) -> bool:
    match value:
        case dict():
            named = value.get("class", "logging.StreamHandler")
            fine = "()" not in value and "." not in value and named in HANDLERS
            return fine and all(_plain_handlers(v) for k, v in value.items() if k != "class")
        case list() | tuple():
            return all(_plain_handlers(v) for v in value)
        case str():
            return "://" not in value or value in ("ext://sys.stdout", "ext://sys.stderr")
    return True


def _passing_on(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls in which a ``__getattr__`` passes its name on to a part of ``self``.

    The call must pass on the unchanged argument, so that no computed name gets there.
    """
    match node:
        case ast.FunctionDef(name="__getattr__", args=ast.arguments(args=[_, ast.arg(arg=given)])):
            inside = [n for statement in node.body for n in ast.walk(statement)]
            if given in {name for n in inside for name in scopes.names(n)}:
                return
            for call in inside:
                match call:
                    case ast.Call(
                        func=ast.Name(id="getattr"), args=[target, ast.Name(id=name), *_]
                    ) if name == given and _part_of_self(target):
                        yield call
                    case ast.Call(
                        func=ast.Attribute(value=ast.Call(func=ast.Name(id="super"))),
                        args=[ast.Name(id=name)],
                    ) if name == given:
                        yield call
                    case ast.Call(
                        func=ast.Attribute(value=ast.Call(func=ast.Name(id="super"))),
                        args=[ast.Constant()],
                    ):
                        yield call


def _part_of_self(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=value):
            return _is_self(value)
        case ast.Call(
            func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__getattr__"),
            args=[ast.Constant()],
        ):
            return True
    return False


def _calls(parent: ast.AST | None, node: ast.expr) -> bool:
    return isinstance(parent, ast.Call) and parent.func is node


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _hidden(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _real(node: ast.expr, scope: Scope) -> list[str]:
    """Return the names of a dotted expression, the first one replaced by its library's real name.

    The first is empty if it is not a library.
    """
    owner, attributes = _taken_apart(node)
    first = scope.real(owner) if isinstance(owner, ast.Name) else ""
    return [*(first or "").split("."), *attributes]


def _chain(node: ast.expr) -> list[str]:
    """Return the names of a dotted expression; the first is … if it is not a plain name."""
    owner, attributes = _taken_apart(node)
    return [owner.id if isinstance(owner, ast.Name) else "…", *attributes]


def _taken_apart(node: ast.expr) -> tuple[ast.expr, list[str]]:
    """Return what a dotted expression begins with, and the names of its attributes, in order."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return node, attributes[::-1]


def constant_bytes(tree: ast.AST) -> int:
    """Return the compressed size in bytes of the constants of a source.

    Strings that are statements are left out: they are documentation, and ``reaches`` finds
    attempts to read them.
    """
    documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    constants: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documentation:
            constants.append(repr(node.value))
        names = (getattr(node, field, None) for field in ("id", "attr", "arg", "name"))
        constants += [name for name in names if isinstance(name, str) and len(name) > LONG_NAME]
    return len(zlib.compress(" ".join(constants).encode(), 9))


def hyperparameters(tree: ast.Module) -> dict[str, Any] | str | None:
    """Return the literal HYPERPARAMETERS, None if there are none, or what is wrong with them."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if not any(isinstance(t, ast.Name) and t.id == "HYPERPARAMETERS" for t in targets):
            continue
        try:
            value = ast.literal_eval(node.value)  # type: ignore[attr-defined]
        except (ValueError, TypeError, SyntaxError):
            value = None
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return value
        return "HYPERPARAMETERS must be one literal dict with string keys at the top level."
    return None


def main() -> None:
    """Read a source from standard input and print what was found."""
    text = sys.stdin.buffer.read().decode()
    try:
        tree = ast.parse(text)
        found = {
            "hyperparameters": hyperparameters(tree),
            "reaches": reaches(tree),
            "constant_bytes": constant_bytes(tree),
        }
    except (SyntaxError, ValueError) as error:
        found = {"syntax": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
