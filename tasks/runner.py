"""Checks a task's runner before it enters a sandbox: its syntax, and which settings it reads.

A missing setting would end every submission with a ``KeyError`` that looks like the submission's
own. The runner's source is only parsed here, never run.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from harness.base.errors import ConfigError

SETTINGS = "settings"


def parse(file: Path) -> ast.Module:
    """Return a Python file's syntax tree. Raises ConfigError naming the line."""
    try:
        return _tree(file.read_bytes())
    except SyntaxError as error:
        cause = f"line {error.lineno}: {error.msg}: {(error.text or '').strip()[:80]}"
        raise ConfigError(f"{file} cannot be parsed.", cause=cause) from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{file} cannot be parsed.", cause=str(error)) from error


@lru_cache(64)  # the tasks of a family share runner and designs
def _tree(source: bytes) -> ast.Module:
    with warnings.catch_warnings(action="ignore"):
        return ast.parse(source)


def settings_read(files: Iterable[Path]) -> dict[str, str]:
    """Return the settings that a runner always needs, each with the place that reads it.

    Left out: settings read only in a branch, or guarded by ``get``, ``in`` or ``except KeyError``.
    Empty if the runner makes its settings itself (from defaults, say). Raises ConfigError.
    """
    needed: dict[str, str] = {}
    optional: set[str] = set()
    for file in files:
        tree = parse(file)
        if any(_makes_its_own(node) for node in ast.walk(tree)):
            return {}
        for node in ast.walk(tree):
            optional |= set(_may_be_absent(node))
        for key, line in _reads(tree):
            needed.setdefault(key, f"{file.name}, line {line}")
    return {key: place for key, place in needed.items() if key not in optional}


def _is_settings(node: ast.AST) -> bool:
    """Return whether it is ``settings``, or ``….settings`` or ``…["settings"]``."""
    match node:
        case ast.Name(id=found) | ast.Attribute(attr=found):
            return found == SETTINGS
        case ast.Subscript(slice=ast.Constant(value=key)):
            return bool(key == SETTINGS)
    return False


def _makes_its_own(node: ast.AST) -> bool:
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            pairs = list(zip(names, values, strict=False))
        case ast.Assign(targets=targets, value=value):
            pairs = [(target, value) for target in targets]
        case (
            ast.AnnAssign(target=target, value=ast.expr() as value)
            | ast.AugAssign(target=target, value=value)
        ):
            pairs = [(target, value)]
        case ast.Call(func=ast.Attribute(value=value, attr="update")):
            return _is_settings(value)
        case _:
            return False
    return any(_is_settings(t) and not _is_settings(v) for t, v in pairs)


def _may_be_absent(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(
            func=ast.Attribute(value=held, attr="get" | "setdefault" | "pop"),
            args=[ast.Constant(str(key)), *_],
        ) if _is_settings(held):
            yield key
        case ast.Compare(left=ast.Constant(str(key)), comparators=[held]) if _is_settings(held):
            yield key
        case ast.Subscript(value=held, slice=ast.Constant(str(key)), ctx=ast.Store()) if (
            _is_settings(held)
        ):
            yield key
        case ast.Try(body=body, handlers=handlers):
            caught = " ".join(ast.unparse(h.type) for h in handlers if h.type)
            if "KeyError" in caught or "LookupError" in caught:
                yield from (key for part in body for key, _ in _reads(part))


def _reads(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each setting that is read whichever branches are taken, with its line."""
    match node:
        case ast.Subscript(value=held, slice=ast.Constant(str(key))) if _is_settings(held):
            yield key, node.lineno
        case ast.DictComp(
            value=ast.Subscript(value=held, slice=ast.Name(id=name)),
            generators=[
                ast.comprehension(target=ast.Name(id=each), iter=ast.Tuple(elts=keys), ifs=[])
            ],
        ) if _is_settings(held) and name == each:  # {k: settings[k] for k in ("dim", "depth")}
            for constant in keys:
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    yield constant.value, constant.lineno
    if isinstance(node, ast.If | ast.IfExp):
        inside: list[ast.AST] = [node.test]
        while isinstance(node, ast.If) and len(node.orelse) == 1:  # elif
            node = node.orelse[0]
            inside += [node.test] if isinstance(node, ast.If) else []
    elif isinstance(node, ast.Match):
        inside = [node.subject]
    else:
        inside = list(ast.iter_child_nodes(node))
    for child in inside:
        yield from _reads(child)
