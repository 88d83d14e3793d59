"""Extracts features of a source from its syntax tree, by the rules in rules.toml.

Deterministic; variable names that no rule matches are no features. A feature is a name in a
category (``learning rates: matrix_lr``) and its value is a text. Two sources differ in a feature
if its values differ, or if only one source has the feature.

A submission may be written to crash a parser. So this module imports no other harness module and
runs as a script in a separate process: JSON lines of sources in, JSON lines of features out.
"""

import ast
import hashlib
import json
import re
import sys
import tomllib
from collections import Counter
from functools import lru_cache
from pathlib import Path

Features = dict[str, str]

MOST_BYTES = 1 << 20
LONGEST = 120

_RULES = tomllib.loads(Path(__file__).with_name("rules.toml").read_text())
_NAMED = [(kind, re.compile("|".join(words))) for kind, words in _RULES["named"].items()]
_CALLED = [(kind, re.compile("|".join(words))) for kind, words in _RULES["called"].items()]


def features(source: str) -> Features:
    """Return the features of a source. Raises SyntaxError, and any other error of the parser."""
    found: dict[str, list[str]] = {}
    calls: Counter[str] = Counter()
    shape = hashlib.sha256()
    stack: list[ast.AST] = [ast.parse(source)]
    while stack:  # no recursion: a source may be nested deeply
        node = stack.pop()
        for name, value in _constants(node):
            category = _of_constant(name.lower())
            if category:
                found.setdefault(f"{category}: {name.lower()}", []).append(value)
        if isinstance(node, ast.Call):
            name = _last(node.func)
            category = _of_call(name)
            if category:
                calls[f"{category}: {name}()"] += 1
        parts, children = _opened(node)
        shape.update(parts.encode(errors="replace"))
        stack += children
    named = {name: " ".join(sorted(set(values)))[:LONGEST] for name, values in found.items()}
    counted = {name: str(count) for name, count in calls.items()}
    return {**named, **counted, CODE: shape.hexdigest()[:16]}


CODE = "other code"
"""The feature for code that no rule matches: a hash of the tree, no comments or docstrings."""

_SILENT = (ast.expr_context, ast.TypeIgnore)


def _opened(node: ast.AST) -> tuple[str, list[ast.AST]]:
    """Return a text of a node without its children, and the children."""
    parts, children = [type(node).__name__], []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            inner = [v for v in value if isinstance(v, ast.AST) and not _is_docstring(node, v)]
            parts.append(f"{name}{len(inner)}{[v for v in value if not isinstance(v, ast.AST)]}")
            children += inner
        elif isinstance(value, ast.AST):
            if not isinstance(value, _SILENT):
                parts.append(name)
                children.append(value)
        elif value is not None:
            parts.append(f"{name}={value!r}")
    return f"({' '.join(parts)})", children


def _is_docstring(node: ast.AST, child: ast.AST) -> bool:
    return (
        isinstance(child, ast.Expr)
        and isinstance(child.value, ast.Constant)
        and isinstance(child.value.value, str)
        and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    )


def _constants(node: ast.AST) -> list[tuple[str, str]]:
    """Return names with their literal values: assignments, keywords, defaults, keys of dicts."""
    match node:
        case ast.Assign(targets=targets, value=value):
            return [(n, v) for t in targets for n, v in _pairs(t, value)]
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            return _pairs(target, value)
        case ast.keyword(arg=str(name), value=value):
            return _one(name, value)
        case ast.Dict(keys=keys, values=values):
            return [
                pair
                for key, value in zip(keys, values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
                for pair in _one(key.value, value)
            ]
        case ast.arguments(args=args, defaults=defaults, kwonlyargs=only, kw_defaults=given):
            late = args[len(args) - len(defaults) :] if defaults else []
            with_values = [*zip(late, defaults, strict=True), *zip(only, given, strict=True)]
            return [p for arg, value in with_values if value for p in _one(arg.arg, value)]
    return []


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[str, str]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        if len(target.elts) == len(value.elts):
            return [p for t, v in zip(target.elts, value.elts, strict=True) for p in _pairs(t, v)]
        return []
    name = _last(target)
    return _one(name, value) if name else []


def _one(name: str, value: ast.expr) -> list[tuple[str, str]]:
    if isinstance(value, ast.Dict):
        return []  # its keys have names of their own
    literal = _literal(value)
    return [] if literal is None else [(name, literal)]


def _literal(value: ast.expr) -> str | None:
    """Return a constant, arithmetic on constants, or a tuple of them, as text."""
    match value:
        case ast.Constant(value=bool() | int() | float() | str() | None as constant):
            return repr(constant)[:LONGEST]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _literal(operand)
            return None if inner is None else f"-{inner}"
        case ast.BinOp(left=left, right=right, op=op):
            a, b = _literal(left), _literal(right)
            return None if a is None or b is None else f"({a} {type(op).__name__} {b})"
        case ast.Tuple(elts=elts) | ast.List(elts=elts):
            parts = [_literal(e) for e in elts]
            known = [p for p in parts if p is not None]
            return f"({', '.join(known)})" if len(known) == len(parts) else None
    return None


def _last(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


@lru_cache(maxsize=1 << 16)
def _of_constant(name: str) -> str:
    return next((category for category, rule in _NAMED if rule.search(name)), "")


@lru_cache(maxsize=1 << 16)
def _of_call(name: str) -> str:
    return next((category for category, rule in _CALLED if rule.fullmatch(name)), "")


def main() -> None:
    """Read a JSON string per line of stdin; print its features, or null if it does not parse."""
    for line in sys.stdin:
        source = json.loads(line)
        try:
            answer: Features | None = features(source) if len(source) <= MOST_BYTES else None
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            answer = None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
