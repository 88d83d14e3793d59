"""Chromium, one for all browser tests; and for the others no waiting for a disk."""

import os
import shutil
from functools import cache

import pytest
import typer.main
import typer.testing

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)

command_of = cache(typer.main.get_command)


@pytest.fixture(autouse=True)
def _spare(monkeypatch):
    """Nobody pulls the plug here, and a command line that is built once is the same each time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(typer.testing, "_get_command", command_of)


@pytest.fixture(scope="session")
def chromium():
    """A real headless Chromium. These tests run only where asked for: without one they fail."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.fail("no Chromium on this machine: apt-get install chromium, or set CHROMIUM")
    # As root Chromium refuses to start with a sandbox of its own; the pages are ours.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()
