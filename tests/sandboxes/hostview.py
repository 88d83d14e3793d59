"""Helpers on the host's side: usable backends, processes by a word in them, another user's view."""

import importlib
import json
import os
import shutil
import subprocess
import textwrap
import threading
import time
import uuid
from pathlib import Path

import pytest

from sandboxes.registry import BACKENDS

REPO = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""Seconds to wait for what takes a moment on an idle machine. Only a hang takes so long."""


def usable(name):
    """Return the backend of this name; if it does not work here, skip the test and say why."""
    found = BACKENDS.find(name)
    probe = found.probe()
    if not probe.available:
        pytest.skip(f"{name}: {probe.detail}. Try: {probe.remedy}")
    return found


def living(marker):
    """Return the pids of all processes with ``marker`` in their command line, except our own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def until(true, seconds=PATIENCE_S):
    """Wait until ``true()`` is true or the time is up; return its last value."""
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def gone(marker, seconds=PATIENCE_S):
    """Wait until no process has ``marker`` in its command line; return False if the time is up."""
    return until(lambda: not living(marker), seconds)


def python(box, source, *args):
    """Return the command that runs Python source in a sandbox."""
    return [box.python, "-I", "-c", textwrap.dedent(source), *args]


def sh(box, script):
    """Run a script of the shell in a sandbox; return its ExecResult."""
    return box.exec(["/bin/sh", "-c", script], timeout=PATIENCE_S)


def speaking(box, argv, lines=1, hear=lambda chunk: None):
    """Start a command; return its process once it has written ``lines`` lines."""
    said, enough = bytearray(), threading.Event()

    def listen(_stream, chunk):
        said.extend(chunk)
        hear(chunk)
        if said.count(b"\n") >= lines:
            enough.set()

    process = box.start(argv, on_output=listen)
    assert enough.wait(PATIENCE_S), f"it said {bytes(said)!r}"
    return process


def as_nobody(program, *packages, group=None, **environ):
    """Run Python source as a user without rights, and return the JSON that it prints.

    It finds our code that a sandbox needs, and the installed ``packages``. Its only argument is a
    folder that it may write. ``group`` is the only group of the user, besides its own.
    """
    interpreter = shutil.which("python3", path="/usr/bin")
    if interpreter is None or shutil.which("setpriv") is None:
        pytest.skip("needs an interpreter that everybody may run")
    place = Path("/tmp", f"harness-nobody-{uuid.uuid4().hex[:8]}")  # only root may enter tmp_path
    place.mkdir(mode=0o755)
    code, driver = place / "code", place / "driver.py"
    groups = "--clear-groups" if group is None else f"--groups={group}"
    try:
        for ours in ("sandboxes", "harness/base"):
            shutil.copytree(REPO / ours, code / ours)
        (code / "harness/__init__.py").write_text("")
        for name in packages:
            found = Path(importlib.import_module(name).__file__).parent
            shutil.copytree(found, code / name)
        driver.write_text(textwrap.dedent(program))
        for name in ("state", "out"):
            (place / name).mkdir(mode=0o700)
            os.chown(place / name, 65534, 65534)
        subprocess.run(["chmod", "-R", "a+rX", code, driver], check=True)
        paths = {"PYTHONPATH": str(code), "HARNESS_STATE": str(place / "state")}
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", groups]
            + [interpreter, "-B", driver, place / "out"],
            env={"PATH": "/usr/bin:/bin", **paths, **environ},
            cwd="/", capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    finally:
        shutil.rmtree(place, ignore_errors=True)
