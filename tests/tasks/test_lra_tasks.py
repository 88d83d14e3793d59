"""Tests all twelve LRA tasks and their stand-ins, from task file to score of the real judge."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_thread import InThread, evaluated
from test_hidden import SAME_ROAD

from tasks.definition import Manifest
from tasks.lra.pathfinder import snakes
from tasks.shared import SPLITS
from tasks.spec import Task, all_tasks, find_task

SIX = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
STAND_INS = ("image-fashion", "pathfinder-gen", "pathx-gen")
FIXED = [f"lra/{name}" for name in SIX]
TWELVE = [f"lra/{name}{variant}" for name in SIX for variant in ("", "-configurable")]
OFTEN = {*FIXED, "lra/text-configurable"}  # "lra/retrieval-configurable" has a test of its own
FAMILY = [*TWELVE, *(f"lra/{n}{v}" for n in STAND_INS for v in ("", "-configurable"))]

HEADINGS = ["Data", "Interface", "Training", "Limits", "Rules, checked by the judge", "Score"]

DUAL = """
import torch
HYPERPARAMETERS = {"steps": 4, "seq_len": 40}


class CustomDualEncoder(torch.nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        assert length == 40
        self.embed = torch.nn.Embedding(vocabulary, dim)
        self.head = torch.nn.Linear(dim, classes)

    def forward(self, tokens_a, mask_a, tokens_b, mask_b):
        assert tokens_a.shape == tokens_b.shape == (len(tokens_a), 40)
        pooled = [(self.embed(t) * m[..., None]).sum(1) / m.sum(1, keepdim=True)
                  for t, m in ((tokens_a, mask_a), (tokens_b, mask_b))]
        return self.head(pooled[0] * pooled[1])
"""


def prepared(task: Task, root: Path, profile: str = "test") -> tuple[Path, Manifest]:
    return task.prepare(profile, root, lambda *_: None)


@pytest.fixture
def root(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, and smaller batches of drawn images."""
    monkeypatch.setattr(snakes, "LAYOUTS_AT_ONCE_PIXELS", 300_000)  # enough for the few rows here
    return data_folder


AUDITS = ["mechanism only", "constants", "finiteness", "statelessness", "near-ties", "trend"]


def softmax(task: Task) -> str:
    source = next(d for d in task.designs() if d.name == "softmax").files["model.py"]
    if task.configurable:
        source += '\nHYPERPARAMETERS = {"steps": 4, "batch_size": 16, "dim": 32}\n'
    return source


def look_at(found: Any, task: Task) -> None:
    assert found.valid, found.message
    assert 0 <= found.score <= 1
    assert found.rows == 128
    assert found.claim["steps"] == (4 if task.configurable else 10)
    assert [a.name for a in found.audits] == AUDITS
    assert not found.conditions.ranked


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.nightly) for name in TWELVE],
)
def test_a_design_is_trained_and_scored(name: str, root: Path) -> None:
    """The whole evaluation, but without a sandbox. CI also runs one task in a sandbox."""
    task = find_task(name)
    look_at(evaluated(task, root, softmax(task), InThread(), "test"), task)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "lra/image" else pytest.mark.nightly)
        for name in TWELVE
    ],
)
def test_a_sandbox_gives_the_same_score(name: str, root: Path, isolating: Any) -> None:
    task = find_task(name)
    found = evaluated(task, root, softmax(task), isolating, "test")
    look_at(found, task)
    again = evaluated(task, root, softmax(task), InThread(), "test")
    assert found.score == again.score
    assert found.claim["final_loss"] == again.claim["final_loss"]
    assert [a.value for a in found.audits] == [a.value for a in again.audits]


def test_a_dual_encoder_scores_the_same_twice(root: Path) -> None:
    """The model sees both documents, cut to the ``seq_len`` it chose; a seed decides the result."""
    task = find_task("lra/retrieval-configurable")
    once, again = (evaluated(task, root, DUAL, InThread(), "test") for _ in range(2))
    assert once.valid, once.message
    assert once.claim["steps"] == 4
    assert once.score == again.score
    for audit, other in zip(once.audits, again.audits, strict=True):
        assert audit.value == other.value
    assert once.claim["final_loss"] == again.claim["final_loss"]


def test_there_are_six_tasks_in_two_variants_and_three_stand_ins() -> None:
    found = {n: t for n, t in all_tasks().items() if n.startswith("lra/")}
    assert sorted(found) == sorted(FAMILY)
    for name, task in found.items():
        assert task.configurable == name.endswith("-configurable")
        real = {"lra/image-fashion": "lra/image", "lra/pathfinder-gen": "lra/pathfinder",
                "lra/pathx-gen": "lra/pathx"}  # fmt: skip
        assert task.definition.stands_in_for == real.get(task.definition.name)
        assert task.definition.chance in (0.1, 0.5)
        assert set(task.definition.profiles) == {"test", "smoke", "short", "paper"}


def test_hashes_differ_between_all_tasks_and_profiles() -> None:
    hashes = [t.hash(p) for n, t in all_tasks().items() for p in t.definition.profiles]
    assert len(hashes) == len(set(hashes))


@pytest.mark.parametrize("name", FAMILY)
def test_descriptions_are_complete_and_in_one_form(name: str) -> None:
    task = find_task(name)
    for profile in task.definition.profiles:
        text = task.description(profile)
        left = text.replace('{"learning_rate": 0.001, "depth": 3}', "")
        assert "{" not in left
        assert "<!--" not in left
        assert "None" not in left
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == HEADINGS
        assert "class CustomEncoder(torch.nn.Module):" in text
        assert ("class CustomDualEncoder" in text) == ("retrieval" in name)
        assert ("HYPERPARAMETERS" in text) == task.configurable
        assert len(text) < 9000


@pytest.mark.parametrize("name", FAMILY)
def test_smoke_and_test_profiles_need_no_network_and_are_unranked_where_data_are_made(
    name: str,
) -> None:
    profiles = find_task(name).definition.profiles
    made = name.removesuffix("-configurable") not in (
        "lra/listops", "lra/pathfinder-gen", "lra/pathx-gen",
    )  # fmt: skip
    for profile in ("test", "smoke"):
        assert profiles[profile].data.get("source", "generated") == "generated"
        assert profiles[profile].ranked is (profile == "smoke" and not made)
        assert ("NOT" in profiles[profile].about) == (profile == "smoke" and made)
    for profile in ("short", "paper"):
        assert (profiles[profile].data.get("source", "generated") == "generated") is not made
        assert profiles[profile].ranked


@pytest.mark.parametrize("name", FAMILY)
def test_settings_lie_within_the_bounds(name: str) -> None:
    definition = find_task(name).definition
    for profile in definition.profiles.values():
        for setting, bound in definition.bounds.items():
            assert bound.allows(profile.settings[setting]), setting


@pytest.mark.parametrize("name", [n for n in FAMILY if not n.endswith("-configurable")])
def test_the_parameter_cap_is_ten_percent_over_the_base_transformer(name: str) -> None:
    """The published rule, at the paper's sizes; the base Transformer has learned positions."""
    import torch

    definition = find_task(name).definition
    profile = definition.profiles["paper"]
    s, data = profile.settings, profile.data
    side = {"hard32": 32, "hard128": 128}.get(str(data.get("style")), data.get("side"))
    length = int(side) ** 2 if side else int(s.get("seq_len", data.get("max_length", 0)))
    dim, hidden, depth = int(s["dim"]), int(s["mlp_dim"]), int(s["depth"])
    vocabulary = {"lra/listops": 16, "lra/text": 257, "lra/retrieval": 257}.get(name, 256)
    layer = torch.nn.TransformerEncoderLayer(dim, int(s["heads"]), hidden, bias=True)
    base = sum(p.numel() for p in layer.parameters()) * depth + (vocabulary + length) * dim
    base += 2 * dim
    if "retrieval" in name:
        base += 4 * dim * hidden + hidden + hidden * hidden // 2 + hidden // 2 + hidden + 2
    else:
        classes = round(1 / definition.chance)
        base += dim * hidden + hidden + hidden * classes + classes
    cap = profile.limits.max_parameters
    assert 1.095 <= cap / base <= 1.105, (base, cap)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SAME_ROAD else [])
        for name in FAMILY
        if not name.endswith("-configurable")
    ],
)
def test_prepared_rows_are_what_the_manifest_says(name: str, root: Path) -> None:
    data, manifest = prepared(find_task(name), root)
    shape = manifest.shape
    everything = []
    for split in SPLITS:
        tokens = np.load(data / split / "tokens.npy")
        labels = np.load(data / split / "labels.npy")
        assert tokens.shape == (manifest.rows[split], shape["length"] * shape.get("documents", 1))
        assert tokens.min() >= 0
        assert tokens.max() < shape["vocabulary"]
        assert tokens.dtype.itemsize * (1 + (shape["vocabulary"] > 256)) <= 4
        assert set(np.unique(labels)) == set(range(shape["classes"]))
        share = np.bincount(labels).max() / len(labels)
        assert share < 2.2 / shape["classes"], "classes are far from even"
        everything += [row.tobytes() for row in tokens]
    assert len(everything) == len(set(everything)), "a row stands twice"
    assert manifest.baselines["chance_test"] == pytest.approx(1 / shape["classes"])
    again, _ = prepared(find_task(name), root)
    assert again == data


@pytest.mark.nightly
@pytest.mark.parametrize("name", [f"lra/{n}" for n in ("text", "image", "pathx")])
def test_smoke_data_are_made_without_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("somebody wants the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    _, manifest = prepared(find_task(name), tmp_path, "smoke")
    assert manifest.parameters.get("source", "generated") == "generated"
