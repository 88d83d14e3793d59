"""Tests the ListOps task: rows, labels, distribution, damaged data, descriptions and designs."""

import hashlib
import json
import random
import runpy
import stat
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import ConfigError
from tasks.arrays import find_fault
from tasks.definition import Knob, Value
from tasks.lra.listops import data as listops
from tasks.shared import SPLITS
from tasks.spec import Task, find_task

TASK_NAMES = ("lra/listops", "lra/listops-configurable")
PROFILES = ("test", "smoke", "short", "paper")
SMALL: dict[str, Value] = {
    "seed": 3, "min_length": 2, "max_length": 24, "max_depth": 4, "max_args": 4,
    "train": 300, "search": 60, "test": 60,
}  # fmt: skip


def prepare(root: Path, **changes: Value) -> Path:
    return listops.prepare("smoke", {**SMALL, **changes}, root, lambda *_: None)


def rows(folder: Path, split: str) -> Iterator[tuple[list[int], int]]:
    tokens = np.load(folder / split / "tokens.npy")
    labels = np.load(folder / split / "labels.npy")
    for row, label in zip(tokens, labels, strict=True):
        ids = row.tolist()
        while ids and ids[-1] == 0:
            ids.pop()
        yield ids, int(label)


def value_of(ids: list[int]) -> int:
    """Evaluate with a stack, by the table in description.md, not by the generator's code."""
    stack: list[Any] = []
    for token in ids:
        if 1 <= token <= 10:
            stack.append(token - 1)
        elif 11 <= token <= 14:
            stack.append(("min", "max", "med", "sm")[token - 11])
        else:
            assert token == 15, "padding inside an expression"
            arguments = []
            while isinstance(stack[-1], int):
                arguments.append(stack.pop())
            assert len(arguments) >= 2
            arguments.sort()
            match stack.pop():
                case "min":
                    stack.append(arguments[0])
                case "max":
                    stack.append(arguments[-1])
                case "med":
                    low, high = arguments[(len(arguments) - 1) // 2], arguments[len(arguments) // 2]
                    stack.append(int((low + high) / 2))
                case "sm":
                    stack.append(sum(arguments) % 10)
    assert len(stack) == 1
    return stack[0]


def arities(ids: list[int]) -> tuple[list[int], int]:
    """Return each operator's number of arguments and the depth of the tree."""
    found, open_nodes, deepest = [], [0], 0
    for token in ids:
        if token == 15:
            found.append(open_nodes.pop())
            continue
        open_nodes[-1] += 1
        deepest = max(deepest, len(open_nodes))
        if token > 10:
            open_nodes.append(0)
    return found, deepest


def test_labels_lengths_and_depths_are_right(tmp_path: Path) -> None:
    for changes in ({}, {"min_length": 50, "max_length": 200, "max_depth": 8, "max_args": 10}):
        p = {**SMALL, **changes}
        folder = prepare(tmp_path, **changes)
        for split in ("train", "search", "test"):
            found = list(rows(folder, split))
            assert len(found) == p[split]
            for ids, label in found:
                assert value_of(ids) == label
                assert p["min_length"] < len(ids) < p["max_length"]  # type: ignore[operator]
                arity, depth = arities(ids)
                assert depth <= p["max_depth"]  # type: ignore[operator]
                assert max(arity) <= p["max_args"]  # type: ignore[operator]


def test_no_expression_stands_in_two_splits_or_twice_in_one(tmp_path: Path) -> None:
    # There are only 400 four-token expressions: without a check for duplicates some would repeat.
    folder = prepare(tmp_path, max_length=8)
    every = [tuple(ids) for split in SPLITS for ids, _ in rows(folder, split)]
    assert len(every) == len(set(every)) == 420
    # Nor do the splits differ in length, as they would if the last were filled with leftovers.
    mean = [np.mean([len(ids) for ids, _ in rows(folder, s)]) for s in ("train", "test")]
    assert abs(mean[0] - mean[1]) < 0.5


def test_distribution_is_the_published_one() -> None:
    """With lengths that keep nearly every tree, each frequency must match within 5 sigma."""
    p = listops.ListopsParameters.model_validate(
        {**SMALL, "min_length": 0, "max_length": 2000, "max_depth": 4, "max_args": 10}
    )
    stream = listops.RandomStream(7)
    levels, lengths = listops.grow(stream, 40_000, p)
    symbols, values, sizes = listops.evaluate(stream, levels)
    assert len(lengths) == 40_000
    assert (sizes[0] == lengths).all()
    assert (levels[-1].arity == 0).all()

    def agrees(count: int, draws: int, share: float) -> bool:
        return abs(count - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5

    inner = np.concatenate([level.arity for level in levels[:-1]])
    symbol = np.concatenate(symbols)
    assert agrees(int((inner > 0).sum()), len(inner), 0.25)
    operators = inner[inner > 0]
    for arity in range(2, 11):
        assert agrees(int((operators == arity).sum()), len(operators), 1 / 9)
    for digit in range(1, 11):
        assert agrees(int((symbol == digit).sum()), int((symbol <= 10).sum()), 0.1)
    for operator in range(11, 15):
        assert agrees(int((symbol == operator).sum()), len(operators), 0.25)


def test_published_sizes_show_the_published_shortcut(tmp_path: Path) -> None:
    """Reference values: majority 17.3-17.6 %, first token alone 38 %, about 1,020 tokens."""
    sizes = {"min_length": 500, "max_length": 2000, "max_depth": 10, "max_args": 10}
    folder = prepare(tmp_path, **sizes, train=2000, search=1000, test=1)
    found = json.loads((folder / "manifest.json").read_text())["baselines"]
    assert found["majority"] == pytest.approx(0.175, abs=0.04)
    assert found["first_token"] == pytest.approx(0.38, abs=0.05)
    assert np.mean([len(ids) for ids, _ in rows(folder, "train")]) == pytest.approx(1020, abs=60)


def test_same_parameters_give_the_same_bytes_on_every_machine(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["shape"] == {"length": 24, "vocabulary": 16, "classes": 10}
    assert manifest["rows"] == {"train": 300, "search": 60, "test": 60}
    # Pinned: if this changes, scores change; raise GENERATOR and note it in CHANGELOG.md, Scores.
    every = [np.load(folder / s / f"{a}.npy") for s in SPLITS for a in ("tokens", "labels")]
    content = hashlib.sha256(b"".join(array.tobytes() for array in every)).hexdigest()
    assert content[:16] == "419c4f1ced50ad3b"
    other = prepare(tmp_path, seed=4)
    assert other != folder
    assert next(rows(other, "train")) != next(rows(folder, "train"))


def test_baselines_are_what_they_say(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    found = json.loads((folder / "manifest.json").read_text())["baselines"]
    every: list[int] = []
    by_first: dict[int, list[int]] = defaultdict(list)
    for ids, label in rows(folder, "train"):
        every.append(label)
        by_first[ids[0]].append(label)

    def commonest(labels: list[int]) -> int:
        return max(range(10), key=labels.count)  # of several, the smallest

    for suffix, split in (("", "search"), ("_test", "test")):
        hidden = list(rows(folder, split))
        majority = np.mean([label == commonest(every) for _, label in hidden])
        first = np.mean([label == commonest(by_first[ids[0]]) for ids, label in hidden])
        assert found[f"majority{suffix}"] == pytest.approx(majority, abs=1e-6)
        assert found[f"first_token{suffix}"] == pytest.approx(first, abs=1e-6)


def test_prepare_twice_writes_once(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert prepare(tmp_path) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_half_made_folder_is_not_taken_for_whole(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    whole = (folder / "manifest.json").read_bytes()
    # What a kill leaves: a .part folder and (by hand, or on an odd file system) an empty final one.
    folder.rename(tmp_path / f".{folder.name}.part")
    folder.mkdir()
    assert prepare(tmp_path) == folder
    assert (folder / "manifest.json").read_bytes() == whole
    assert not (tmp_path / f".{folder.name}.part").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_damage_is_noticed_and_repaired(tmp_path: Path, damage: str) -> None:
    folder = prepare(tmp_path)
    victim = folder / "search" / "tokens.npy"
    good = victim.read_bytes()
    match damage:
        case "flip":
            victim.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        case "truncate":
            victim.write_bytes(good[:-100])
        case "remove":
            victim.unlink()
        case "manifest":
            (folder / "manifest.json").write_text("{")
    said = []
    listops.prepare("smoke", SMALL, tmp_path, lambda what, done, total: said.append(what))
    assert victim.read_bytes() == good
    assert said[0].startswith("rebuilding")


def test_two_at_once_end_with_one_whole_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(prepare, [tmp_path] * 2)
    assert one == other
    assert find_fault(one, SMALL) == ""


def test_hidden_splits_are_closed_to_other_users(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    modes = {s: stat.S_IMODE((folder / s).stat().st_mode) for s in SPLITS}
    assert modes == {"train": 0o755, "search": 0o700, "test": 0o700}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"max_length": "many"}, "max_length"),
        ({"colour": 1}, "colour"),
        ({"min_length": 23}, "exclusive"),
        ({"max_length": 5, "train": 3000}, "different expressions"),
    ],
)
def test_bad_parameters_are_refused(tmp_path: Path, changes: dict[str, Value], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        prepare(tmp_path, **changes)


def test_root_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another data folder"):
        prepare(tmp_path / "file" / "below")


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'smoke'"):
        find_task("lra/listops").profile("smok")
    with pytest.raises(ConfigError, match="'lra/listops'"):
        find_task("lra/listop")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", TASK_NAMES)
def test_description_tells_the_length_and_every_operators_id(name: str, profile: str) -> None:
    task = find_task(name)
    text = task.description(profile)
    assert f"{task.profile(profile).data['max_length']} ids" in text
    for number, token in enumerate(listops.TOKENS[11:], 11):
        assert f"| `{token}` | {number} |" in text


def draw(knobs: dict[str, Knob], rng: random.Random) -> dict[str, Value]:
    return {
        name: rng.choice(knob.choices) if knob.choices else rng.uniform(knob.low, knob.high)  # type: ignore[arg-type]
        for name, knob in knobs.items()
    }


def submissions() -> list[Any]:
    task = find_task("lra/listops")
    found = [pytest.param(d.files["model.py"], id=d.name) for d in task.designs()]
    rng = random.Random(0)
    for mixer in task.definition.knobs["mixer"].choices:
        for turn in range(3):
            values = {**draw(task.definition.knobs, rng), "mixer": mixer}
            found.append(pytest.param(task.render(values)["model.py"], id=f"{mixer}-{turn}"))
    return found


def test_render_changes_the_knobs_line_only() -> None:
    task: Task = find_task("lra/listops")
    source = (task.folder / "designs" / "searchable.py").read_text().splitlines()
    rng = random.Random(1)
    for _ in range(20):
        values = draw(task.definition.knobs, rng)
        lines = task.render(values)["model.py"].splitlines()
        compile("\n".join(lines), "model.py", "exec")
        assert [a for a, b in zip(lines, source, strict=True) if a != b] == [
            f"KNOBS = {dict(sorted(values.items()))!r}"
        ]


def test_designs_have_summaries() -> None:
    for design in find_task("lra/listops").designs():
        assert design.summary.endswith(".")
        assert len(design.summary) < 100


@pytest.fixture(scope="module")
def small(data_folder: Path) -> Path:
    return prepare(data_folder)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("source", submissions())
def test_design_honours_the_interface(source: str, small: Path, tmp_path: Path) -> None:
    import torch

    # Loaded from a file, because Triton reads the source text of its kernels.
    (tmp_path / "model.py").write_text(source)
    encoder = runpy.run_path(str(tmp_path / "model.py"), run_name="model")["CustomEncoder"]
    torch.manual_seed(0)
    model = encoder(
        vocabulary=16, classes=10, length=24, dim=16, depth=2, heads=2, mlp_dim=32, dropout=0.1
    )
    tokens = torch.from_numpy(np.load(small / "train" / "tokens.npy")).long()[:40]

    logits = model(tokens, tokens != 0)
    assert logits.shape == (40, 10)
    torch.nn.functional.cross_entropy(logits, tokens[:, 0] % 10).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # Rows of a position table that no sequence reaches have no gradient, but every tensor has one.
    assert still == []

    model.eval()
    with torch.no_grad():
        together = model(tokens, tokens != 0)
        order = torch.randperm(40)
        assert torch.allclose(model(tokens[order], tokens[order] != 0), together[order], atol=1e-4)
        for start, size in ((0, 1), (7, 3), (20, 20)):
            part = tokens[start : start + size]
            alone = model(part, part != 0)
            assert torch.allclose(alone, together[start : start + size], atol=1e-4)
