"""Tests that real shell and judge raise no false alarm on the gallery, under the task's cap."""

from pathlib import Path

import pytest
from in_thread import InThread, evaluated

from sandboxes.base import Backend
from tasks.lra import gallery
from tasks.spec import find_task


def assert_clean(name: str, root: Path, backend: Backend) -> None:
    source = gallery.source_of(name).read_text()
    score = evaluated(find_task("lra/listops"), root, source, backend, "search")
    assert score.valid, score.message
    assert {audit.name for audit in score.audits} >= {"finiteness", "statelessness"}
    assert all(audit.passed for audit in score.audits), score.audits


OFTEN = {"softmax", "tree", "gated_recurrence"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in OFTEN else pytest.mark.slow) for n in gallery.NAMES],
)
def test_the_judge_finds_no_fault(name: str, data_folder: Path) -> None:
    assert_clean(name, data_folder, InThread())


@pytest.mark.nightly
@pytest.mark.parametrize("name", gallery.NAMES)
def test_nor_does_it_through_a_sandbox(name: str, data_folder: Path, isolating: Backend) -> None:
    assert_clean(name, data_folder, isolating)
