"""Everything can be imported: no output, no torch, no work at import."""

import subprocess
import sys

PROBE = """
import importlib, pkgutil, sys
import harness, sandboxes, scorers, tasks
for package in (harness, sandboxes, scorers, tasks):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if ".designs" in module.name or module.name.endswith((".shell", ".schedule", "__main__")):
            continue  # runs inside the sandbox only
        importlib.import_module(module.name)
assert {"harness.cli.app", "sandboxes", "scorers.judge", "tasks.spec"} <= set(sys.modules)
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
        [sys.executable, "-c", PROBE], capture_output=True, cwd=tmp_path, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b""
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr.decode()
    assert b"leaderboard" in done.stdout
