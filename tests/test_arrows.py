"""Import layers (pyproject.toml): which package may import which, and what imports must not do."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.spec import all_tasks

ROOT = Path(__file__).parents[1]
OURS = ("harness", "sandboxes", "scorers", "tasks")
SOURCES = sorted(file for top in OURS for file in (ROOT / top).rglob("*.py"))
HEAVY = {
    "torch", "triton", "numpy", "pyarrow", "PIL", "httpx2", "tiktoken", "rustbpe", "zstandard",
    "docker", "requests", "optuna", "anthropic", "openai", "jinja2", "psutil", "scipy",
    "sklearn",
}  # fmt: skip
"""Packages that may be imported inside a function: they load slowly, or may not be installed."""

PROBE = """
import importlib, pkgutil, sys
import harness, sandboxes, scorers, tasks
for package in (harness, sandboxes, scorers, tasks):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if ".designs" in module.name or module.name.endswith((".shell", ".schedule", "__main__")):
            continue  # runs inside the sandbox only
        parts = "worker", "trainer", "recorded", "population", "blocks", "plain", "fused", "kernels"
        if module.name.split(".")[:3] in [["scorers", "proxies", part] for part in parts]:
            continue  # runs in a process of its own only
        importlib.import_module(module.name)
assert {"harness.cli.app", "sandboxes", "scorers.judge", "tasks.spec"} <= set(sys.modules)
heavy = {"torch", "optuna", "sklearn", "docker", "scipy", "anthropic", "openai"} & set(sys.modules)
assert not heavy, heavy
"""

HELP = """
import sys
sys.argv = ["harness", "--help"]
from harness.cli import main
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "numpy", "pydantic", "optuna", "psutil", "tomlkit"} & set(sys.modules)
assert not heavy, heavy
"""

LIGHT = (
    "agents",
    "bundle",
    "export",
    "gc",
    "ls",
    "new",
    "policies",
    "prepare",
    "show",
    "stop",
    "watch",
)
"""Quick commands, for which a person waits: they must start without numpy."""


def test_importing_everything_prints_nothing_and_brings_no_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, cwd=tmp_path, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b""
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr.decode()
    assert b"leaderboard" in done.stdout


def test_commands_that_only_look_start_without_numpy():
    lines = [f"import harness.cli.{name}" for name in LIGHT]
    lines += ["import sys", "assert not {'numpy', 'torch'} & set(sys.modules)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_floors_hold():
    """As ``make arrows`` checks it, both contracts in pyproject.toml are kept."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True, cwd=ROOT, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode()
    assert b"2 kept" in done.stdout


def hidden_imports(source: str) -> Iterator[str]:
    """Yield the packages that are imported inside of functions, or for type checkers only."""
    for node in ast.walk(ast.parse(source)):
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = True
        for found in ast.walk(node) if inside else ():
            if isinstance(found, ast.ImportFrom):
                yield (found.module or ".").partition(".")[0]
            elif isinstance(found, ast.Import):
                yield from (name.name.partition(".")[0] for name in found.names)


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import harness.base.errors",
        "async def f():\n    from tasks.spec import Task",
        "class A:\n    def f(self):\n        if self:\n            import json",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.core import tree",
        "def f():\n    from . import g",
    ],
)
def test_an_import_is_seen_wherever_it_hides(source):
    assert set(hidden_imports(source)) - HEAVY


def test_nothing_is_imported_inside_of_a_function_but_what_is_heavy():
    """An import cycle could hide there: a report of lint-imports is useless then, or missing."""
    inside = {file for task in all_tasks().values() for file in task.runner_files().values()}
    found = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in SOURCES
        if file not in inside and file.parent.name != "designs"  # run in the sandbox, in no layer
        for name in set(hidden_imports(file.read_text())) - HEAVY
    }
    assert not found


def test_every_room_has_a_floor():
    """A package that the layers contract does not name could import anything."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    named = {room.strip() for floor in layers for room in floor.split("|")}
    rooms = {f"harness.{p.parent.name}" for p in (ROOT / "harness").glob("*/__init__.py")}
    assert named == rooms | set(OURS) - {"harness"}
    assert {p.name for p in (ROOT / "harness").glob("*.py")} == {"__init__.py", "__main__.py"}
