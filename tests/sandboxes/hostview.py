"""The host's side: which backends work on it, and processes by a word in their command line."""

import os
import time
from pathlib import Path

import pytest

from sandboxes.registry import BACKENDS


def usable(name):
    """Return the backend of this name, or skip and say why it does not work here."""
    found = BACKENDS[name]
    probe = found.probe()
    if not probe.available:
        pytest.skip(f"{name}: {probe.detail}. Try: {probe.remedy}")
    return found


def living(marker):
    """Return the host's processes whose command line holds ``marker``, ourselves excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def gone_within(seconds, marker):
    """Wait for the last process with ``marker`` to end; say whether it did."""
    deadline = time.monotonic() + seconds
    while living(marker):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
