"""Every module can be imported alone: no output, no torch, no work at import."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

PROBE = """
import importlib, pkgutil, sys
import harness, sandboxes, scorers, tasks
for package in (harness, sandboxes, scorers, tasks):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if ".designs" in module.name or module.name.endswith((".shell", ".schedule", "__main__")):
            continue  # runs inside the sandbox only
        importlib.import_module(module.name)
heavy = {"torch", "optuna", "docker", "scipy", "anthropic", "openai"} & set(sys.modules)
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


def test_importing_everything_prints_nothing_and_brings_no_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b""
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert b"leaderboard" in done.stdout
