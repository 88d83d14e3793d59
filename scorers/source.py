"""What the text of a submission shows, read without running it.

Runs as a program of its own (``python -I -S source.py < model.py``), because deep nesting can
crash the parser and must not take the judge along. It prints one JSON object: ``hyperparameters``
(a dict, or null where there is none, or a sentence about what is wrong), ``reaches`` (lines and
words) and ``constant_bytes``; or ``{"syntax": …}``.

``reaches`` holds what a mechanism does not need: files, processes, the interpreter's insides,
gradients and optimisers. Such a list cannot be complete, for torch is large and Python is
dynamic, so it goes by names wherever they stand, and it is no wall: the sandbox is. It is there
so that a model cannot quietly train otherwise than the fixed shell does.
"""

import ast
import json
import sys
import zlib
from collections.abc import Iterator
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODULES = _words("""
    torch numpy math cmath einops triton typing functools itertools collections dataclasses abc
    enum __future__ warnings contextlib numbers copy random
""")
"""What may be imported, submodules included."""

NAMES = _words("""
    eval exec compile globals locals vars dir open breakpoint delattr
""")
"""Built-ins that may not be named; nor may other names with double underscores."""

LIBRARIES = _words("""
    sys os builtins importlib inspect ctypes subprocess pathlib shutil socket threading
    multiprocessing pickle gc tempfile attrgetter methodcaller
""")
TRAINING = _words("""
    optim backward grad vjp jacrev jacobian register_hook register_post_accumulate_grad_hook
    register_full_backward_hook register_full_backward_pre_hook enable_grad set_grad_enabled
    set_default_device
""")
FILES = _words("""
    save load_library load_inline cpp_extension from_file memmap fromfile tofile loadtxt savetxt
    genfromtxt DataSource ctypeslib hub serialization package distributed
""")
FRAMES = _words("tb_frame f_globals f_locals f_back f_builtins gi_frame cr_frame ag_frame")
ATTRIBUTES = LIBRARIES | TRAINING | FILES | FRAMES
"""Attributes that may not be named, of whatever: others have imported what one must not."""

LOADERS = ("triton.language", "self")
"""What may ``load``: a kernel is made of ``tl.load``; on other objects it reads files."""

SETTINGS = ("torch", "backends")
"""The part of a library that may be assigned to."""

LONG_NAME = 40
"""Characters. A longer identifier counts as a constant: names can carry data, too."""

DUNDERS = _words("__init__ __name__ __class__ __version__ __call__ __len__ __all__")
"""Names with double underscores that may be read."""

GETTERS = frozenset({"getattr", "setattr", "hasattr"})
"""To be called with names written out, or on ``self``."""


Found = tuple[int, str]


def reaches(tree: ast.AST) -> list[Found]:
    """Return line and words of everything that a mechanism has no use for, in order."""
    nodes = list(ast.walk(tree))
    modules = {local: name for node in nodes for local, name in _imported(node)}
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    found: set[Found] = set()
    for node in nodes:
        for words in _reached(node, modules, called=id(node) in called):
            found.add((getattr(node, "lineno", 0), words))
    return sorted(found)


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the local and the real name of each module or member that a statement imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.split(".")[0]
            yield alias.asname or name, name
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _reached(node: ast.AST, modules: dict[str, str], *, called: bool) -> Iterator[str]:
    match node:
        case ast.Import() | ast.ImportFrom():
            yield from _bad_import(node)
        case ast.Name(id=name) if name not in modules:
            if name in NAMES or _hidden(name) or (name in GETTERS and not called):
                yield f"`{name}`"
        case ast.Attribute():
            yield from _bad_attribute(node, modules)
        case ast.MatchClass(kwd_attrs=names):
            yield from (f"`{name}`" for name in names if _forbidden(name))
        case ast.Call(func=ast.Name(id=name), args=[target, attribute, *_]) if name in GETTERS:
            yield from _bad_getter(name, target, attribute)


def _bad_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    if isinstance(node, ast.ImportFrom) and (node.level or node.module is None):
        yield "a relative import"
        return
    for alias in node.names:
        top, *rest = (prefix + alias.name).split(".")
        bad = {"*", "load"}.intersection(rest[-1:]) or any(_forbidden(part) for part in rest)
        if top not in MODULES or bad:
            yield f"`import {prefix}{alias.name}`"


def _bad_attribute(node: ast.Attribute, modules: dict[str, str]) -> Iterator[str]:
    first, *rest = _chain(node)
    written = ".".join([first or "…", *rest])
    real = [*modules.get(first, first).split("."), *rest]
    known = first in modules
    reads_files = node.attr == "load" and ".".join(real[:-1]) not in LOADERS
    if _forbidden(node.attr) or reads_files or (known and real[1].startswith("_")):
        yield f"`{written}`"
    elif known and not isinstance(node.ctx, ast.Load) and tuple(real[:2]) != SETTINGS:
        yield f"`{written} = …`, which changes a library"


def _bad_getter(name: str, target: ast.expr, attribute: ast.expr) -> Iterator[str]:
    own = isinstance(target, ast.Name) and target.id == "self"
    if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
        if _forbidden(attribute.value) or (name == "setattr" and not own):
            yield f"`{name}(…, {attribute.value!r})`"
    elif not own:
        yield f"`{name}` with a computed name"


def _forbidden(name: str) -> bool:
    return name in ATTRIBUTES or _hidden(name)


def _hidden(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in DUNDERS


def _chain(node: ast.expr) -> list[str]:
    """Return the names of a dotted expression; the first is empty where it is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return parts[::-1]


def constant_bytes(tree: ast.AST) -> int:
    """Return how many bytes the constants of a source come to when compressed.

    Strings that stand as statements are left out: they are documentation, and what ``reaches``
    finds keeps a program from reading it.
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
    """Return the literal HYPERPARAMETERS, None if there is none, or what is wrong with it."""
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
