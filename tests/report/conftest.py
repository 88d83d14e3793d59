"""Fixtures of the report tests: one Chromium for all browser tests, and no fsync in any test."""

import os
import shutil

import pytest

from harness.report.html import page as pages

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)


@pytest.fixture(autouse=True)
def _spare(monkeypatch):
    """Switch fsync off, which saves time: no test here simulates a power failure."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def quick(monkeypatch):
    """Skip the features of the sources: reading them takes most of the time of a report."""
    monkeypatch.setattr(pages.features, "build", lambda runs: ([], {}))


@pytest.fixture(scope="session")
def chromium():
    """A real headless Chromium. Its tests run only on request, and fail if there is none."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.fail("no Chromium on this machine: apt-get install chromium, or set CHROMIUM")
    # As root, Chromium refuses to start with its own sandbox. Our own pages do not need one.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()
