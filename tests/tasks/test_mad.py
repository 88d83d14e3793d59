"""Tests the MAD data: each target follows from its row, by a slow second reading of each part."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.base.errors import ConfigError
from tasks.compose.mad import data as mad
from tasks.compose.mad import generators
from tasks.definition import Manifest, Value
from tasks.kinds import IGNORED, parts_fault
from tasks.shared import SPLITS
from tasks.stream import RandomStream

ORIGINAL: dict[str, Value] = {
    "seed": 1, "parts": ",".join(mad.PARTS),
    "train": 800, "memorization_train": 256, "search": 1280, "test": 1280,
    "vocabulary": 16, "noise_vocabulary": 16, "noise": 0.2, "length": 128, "motif": 3,
    "copying_length": 256, "copies": 16, "compression_length": 32,
    "memorization_vocabulary": 256, "memorization_length": 32,
}  # fmt: skip
SMALL: dict[str, Value] = {
    **ORIGINAL, "train": 30, "memorization_train": 20, "search": 25, "test": 24,
    "length": 40, "copying_length": 36, "copies": 12, "compression_length": 24,
}  # fmt: skip
Row = tuple[list[int], list[int]]
seeds = st.integers(0, 2**64 - 1)


def prepare(root: Path, **changes: Value) -> tuple[Path, Manifest]:
    folder = mad.prepare("smoke", {**SMALL, **changes}, root, lambda *_: None)
    return folder, Manifest.model_validate_json((folder / "manifest.json").read_text())


def arrays(folder: Path, split: str, part: str) -> tuple[NDArray[Any], NDArray[Any]]:
    inputs, targets = (np.load(folder / split / f"{part}_{a}.npy") for a in ("inputs", "targets"))
    return inputs, targets


def rows(made: tuple[NDArray[Any], NDArray[Any]]) -> Iterator[Row]:
    """Yield the rows as lists, after a look at the shape and the type of the targets."""
    inputs, targets = made
    assert inputs.shape == targets.shape
    assert targets.dtype == np.int16
    for row, asked in zip(inputs, targets, strict=True):
        yield row.tolist(), asked.tolist()


def agrees(count: int, draws: int, share: float) -> bool:
    return abs(count - draws * share) < 5 * math.sqrt(draws * share * (1 - share))


def even(tokens: list[int], least: int, most: int) -> bool:
    """Return whether all ids from ``least`` to ``most`` are equally common, and no other is."""
    counts = Counter(tokens)
    share = 1 / (most - least + 1)
    return set(counts) == set(range(least, most + 1)) and all(
        agrees(count, len(tokens), share) for count in counts.values()
    )


def answers_of_recall(tokens: list[int], vocabulary: int) -> list[int]:
    """Return what can be known of each token when all before it are: the value of a known key."""
    known: dict[int, int] = {}
    found = []
    for key, value in zip(tokens[::2], tokens[1::2], strict=True):
        if key >= vocabulary:
            assert value >= vocabulary, "half a pair is noise"
            found += [-100, -100]
            continue
        assert key < vocabulary // 2 <= value < vocabulary
        found += [-100, known.get(key, -100)]
        assert known.setdefault(key, value) == value, "a key has two values"
    return found


@given(seeds, st.integers(4, 19), st.integers(4, 20), st.integers(1, 9), st.floats(0, 0.99))
def test_recall_asks_for_the_value_that_the_key_had(
    seed: int, vocabulary: int, pairs: int, noise_vocabulary: int, noise: float
) -> None:
    def draw(training: bool) -> list[list[Row]]:
        length = 2 * pairs
        plain = generators.in_context_recall(
            RandomStream(seed), 3, vocabulary, length, training=training
        )
        noisy = generators.noisy_recall(
            RandomStream(seed), 3, vocabulary, noise_vocabulary, noise, length, training=training
        )
        return [list(rows(plain)), list(rows(noisy))]

    plain, noisy = draw(False)
    for row, asked in plain + noisy:
        whole = [*row, asked[-1]]
        assert len(whole) == 2 * pairs
        assert max(whole) < vocabulary + noise_vocabulary
        assert answers_of_recall(whole, vocabulary)[1:] == asked
        assert row[-1] in row[:-1:2], "the last key was never shown"
    assert max(max(row) for row, _ in plain) < vocabulary
    for masked, full in zip((plain, noisy), draw(True), strict=True):
        for (row, asked), (same, following) in zip(masked, full, strict=True):
            assert same == row
            assert following == [*row[1:], asked[-1]]


def test_one_pair_is_protected_from_noise() -> None:
    made = generators.noisy_recall(RandomStream(5), 500, 8, 4, 0.999, 12, training=False)
    places: Counter[int] = Counter()
    for row, _ in rows(made):
        shown = [at for at in range(5) if row[2 * at] < 8]
        assert len(shown) >= 1
        places.update(shown)
    assert all(agrees(places[at], 500, 1 / 5) for at in range(5))


def test_recall_has_the_distribution_of_the_original() -> None:
    inputs, _ = generators.noisy_recall(RandomStream(6), 2000, 16, 16, 0.2, 128, training=False)
    pairs = inputs[:, :126].reshape(-1, 2)
    noise = pairs[:, 0] >= 16
    assert agrees(int(noise.sum()), len(pairs), 0.2 * 62 / 63)
    assert even(pairs[noise].ravel().tolist(), 16, 31)
    assert even(pairs[~noise, 0].tolist(), 0, 7)
    # Values come once for each key of a row, not once for each pair.
    first = [dict(zip(row[::2], row[1::2], strict=True)) for row in inputs[:, :126].tolist()]
    values = [value for row in first for key, value in row.items() if key < 8]
    assert even(values, 8, 15)
    assert any(len(set(row.values())) < len(row) for row in first), "no two keys share a value"
    # The last key is any of those shown, however often: here 7 of 8 pairs show one key.
    assert even(inputs[:, -1].tolist(), 0, 7)
    few, _ = generators.in_context_recall(RandomStream(6), 4000, 4, 10, training=False)
    both = [row for row in few.tolist() if sorted(row[:-1:2]) == [0, 1, 1, 1]]
    assert agrees(sum(row[-1] for row in both), len(both), 1 / 2)


def motifs(tokens: list[int], key_count: int) -> list[tuple[int, ...]]:
    """Return keys and values in turn: keys are runs of low ids, values runs of high ids."""
    return [tuple(run) for _, run in groupby(tokens, lambda token: token < key_count)]


def answers_of_fuzzy(runs: list[tuple[int, ...]]) -> list[int]:
    known: dict[tuple[int, ...], tuple[int, ...]] = {}
    found: list[int] = []
    for key, value in zip(runs[::2], runs[1::2], strict=True):
        found += [-100] * len(key)
        found += known.get(key, [-100] * len(value))
        assert known.setdefault(key, value) == value, "a key has two values"
    return found


@given(seeds, st.integers(1, 3), st.integers(0, 9), st.integers(1, 30), st.booleans())
def test_fuzzy_recall_asks_for_the_motif_that_the_key_had(
    seed: int, motif: int, more: int, longer: int, training: bool
) -> None:
    vocabulary, length = 2 * motif + 1 + more, 6 * motif + longer
    made = generators.fuzzy_recall(
        RandomStream(seed), 4, vocabulary, length, motif, training=training
    )
    for row, asked in rows(made):
        assert len(row) == length
        whole = [*row, asked[-1]]
        shown = [token for token in whole if token != vocabulary - 1]
        padding = len(whole) - len(shown)
        assert whole == [vocabulary - 1] * padding + shown
        assert 2 <= padding <= 2 * motif + 1
        runs = motifs(shown, (vocabulary - 1) // 2)
        assert max(shown) < vocabulary - 1
        assert all(len(set(run)) == len(run) for run in runs)
        assert {len(run) for run in runs} <= set(range(1, motif + 1))
        assert runs[-2] in runs[:-2:2], "the last key was never shown"
        if training:
            assert asked == [-100] * (padding - 1) + shown
        else:
            assert {len(key) for key in runs[::2]} == {motif}
            assert asked == [-100] * (padding - 1) + answers_of_fuzzy(runs)


def test_fuzzy_recall_has_the_distribution_of_the_original() -> None:
    training = generators.fuzzy_recall(RandomStream(7), 1500, 16, 128, 3, training=True)
    sizes: Counter[int] = Counter()
    firsts: list[int] = []
    for row, asked in rows(training):
        first = motifs([token for token in [*row, asked[-1]] if token != 15], 7)[0]
        sizes[len(first)] += 1
        firsts.append(first[0])
    # Of a row's first pair: later ones depend on how much room is left.
    assert even([size for size, count in sizes.items() for _ in range(count)], 1, 3)
    assert even(firsts, 0, 6)
    held_out = generators.fuzzy_recall(RandomStream(7), 1500, 16, 128, 3, training=False)
    orders: list[tuple[int, ...]] = []
    places, last_sizes = [], []
    for row, asked in rows(held_out):
        runs = motifs([token for token in [*row, asked[-1]] if token != 15], 7)
        keys = runs[::2]
        orders.append(keys[-1])
        last_sizes.append(len(runs[-1]))
        if keys.count(keys[-1]) == 2:
            places.append(keys.index(keys[-1]) / (len(keys) - 2))
    assert even(last_sizes, 1, 3)
    assert len(set(orders)) > 205, "some motifs never come"
    assert all(even([order[at] for order in orders], 0, 6) for at in range(3))
    assert abs(np.mean(places) - 1 / 2) < 5 / (12 * len(places)) ** 0.5
    assert min(places) == 0
    assert max(places) == 1


@given(seeds, st.integers(4, 19), st.integers(1, 12), st.integers(1, 30))
def test_copying_asks_for_the_content_in_its_order(
    seed: int, vocabulary: int, copies: int, blanks: int
) -> None:
    length = 2 * copies + 1 + blanks
    made = generators.selective_copying(RandomStream(seed), 3, vocabulary, length, copies)
    copy, blank = vocabulary - 1, vocabulary - 2
    for row, asked in rows(made):
        before, after = row[: copies + blanks], row[copies + blanks :]
        content = [token for token in before if token != blank]
        assert after == [copy] + [blank] * copies
        assert len(content) == copies
        assert all(0 <= token < blank for token in content)
        assert before[-1] != blank, "a blank stands before the copy token"
        assert asked == [-100] * (length - copies) + content


def test_copying_spreads_blanks_evenly_before_the_tokens() -> None:
    inputs, targets = generators.selective_copying(RandomStream(8), 2000, 10, 16, 5)
    before: Counter[int] = Counter()
    for row in inputs[:, :10].tolist():
        gaps = np.diff([-1, *(at for at, token in enumerate(row) if token != 8)]) - 1
        before.update({token: int(gap) for token, gap in enumerate(gaps)})
    assert before.total() == 10_000
    assert all(agrees(before[token], 10_000, 1 / 5) for token in range(5))
    assert even(targets[:, -5:].ravel().tolist(), 0, 7)


@given(seeds, st.integers(2, 300), st.integers(2, 40))
def test_compression_asks_for_its_input(seed: int, vocabulary: int, length: int) -> None:
    made = generators.compression(RandomStream(seed), 3, vocabulary, length)
    assert made[0].dtype == (np.uint8 if vocabulary <= 256 else np.int16)
    for row, asked in rows(made):
        assert row == asked
        assert row[-1] == vocabulary - 1
        assert max(row[:-1]) < vocabulary - 1


@given(seeds, seeds, st.integers(5, 300), st.integers(1, 20))
def test_memorization_has_one_table_for_all_seeds(
    one: int, other: int, vocabulary: int, pairs: int
) -> None:
    table = generators.memorized(vocabulary).tolist()
    key_count = (vocabulary - 1) // 2
    assert len(set(table)) == len(table) == key_count
    assert all(key_count <= value < vocabulary - 1 for value in table)
    for seed in (one, other):
        made = generators.memorization(RandomStream(seed), 2, vocabulary, 2 * pairs)
        for row, asked in rows(made):
            assert row[1::2] == [vocabulary - 1] * pairs
            assert max(row[::2]) < key_count
            assert asked[::2] == [-100] * pairs
            assert asked[1::2] == [table[key] for key in row[::2]]


def test_memorization_and_compression_draw_evenly() -> None:
    inputs, _ = generators.memorization(RandomStream(9), 1000, 20, 32)
    assert even(inputs[:, ::2].ravel().tolist(), 0, 8)
    inputs, _ = generators.compression(RandomStream(9), 1000, 16, 32)
    assert even(inputs[:, :-1].ravel().tolist(), 0, 14)


@pytest.fixture(scope="module")
def original(data_folder: Path) -> tuple[Path, Manifest]:
    return prepare(data_folder, **ORIGINAL)


def test_original_sizes(original: tuple[Path, Manifest]) -> None:
    folder, manifest = original
    sizes = {  # part: vocabulary, width, training rows, targets in a search row
        "in_context_recall": (16, 127, 800, None),
        "fuzzy_recall": (16, 128, 800, None),
        "noisy_recall": (32, 127, 800, None),
        "selective_copying": (16, 256, 800, 16),
        "compression": (16, 32, 800, 32),
        "memorization": (256, 32, 256, 16),
    }
    shape = {"compression.from_last": 1}
    for part, (vocabulary, width, training_rows, asked) in sizes.items():
        shape |= {f"{part}.vocabulary": vocabulary, f"{part}.length": width}
        for split, count in (("train", training_rows), ("search", 1280), ("test", 1280)):
            inputs, targets = arrays(folder, split, part)
            assert inputs.shape == targets.shape == (count, width)
            assert inputs.dtype == np.uint8
            assert inputs.max() == vocabulary - 1
            per_row = (targets != -100).sum(axis=1)
            assert (per_row >= 1).all()
            assert asked is None or (per_row == asked).all()
    assert manifest.shape == shape
    assert manifest.rows == {"train": 800, "search": 1280, "test": 1280}
    # Every row of the original's sizes is new: none comes twice, within a split or across splits.
    for part in sizes:
        every = [row.tobytes() for split in SPLITS for row in arrays(folder, split, part)[0]]
        assert len(every) == len(set(every))


def test_same_parameters_give_the_same_bytes_on_every_machine(
    original: tuple[Path, Manifest],
) -> None:
    # Pinned: if this changes, scores change; raise GENERATOR and note it in CHANGELOG.md, Scores.
    folder, _ = original
    every = [a.tobytes() for s in SPLITS for p in mad.PARTS for a in arrays(folder, s, p)]
    assert hashlib.sha256(b"".join(every)).hexdigest()[:16] == "052c63b3d8cb25f9"


def test_seed_and_part_alone_decide_a_parts_rows(tmp_path: Path) -> None:
    def content(part: str, **changes: Value) -> list[bytes]:
        folder, _ = prepare(tmp_path, **changes)
        return [a.tobytes() for split in SPLITS for a in arrays(folder, split, part)]

    for part in mad.PARTS:
        assert content(part, parts=part) == content(part)
    changed = [content(p, seed=2)[0] != content(p)[0] for p in mad.PARTS]
    assert all(changed)
    _, manifest = prepare(tmp_path, parts="memorization, compression")
    assert manifest.parameters["parts"] == "memorization,compression"
    assert manifest.rows["train"] == SMALL["train"]
    assert list(manifest.shape)[:2] == ["memorization.vocabulary", "compression.vocabulary"]
    _, manifest = prepare(tmp_path, parts="memorization")
    assert manifest.rows["train"] == SMALL["memorization_train"]
    assert "compression.from_last" not in manifest.shape


def test_hidden_key_changes_search_and_test_but_not_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content(key: str) -> dict[tuple[str, str], set[bytes]]:
        monkeypatch.setenv("HARNESS_HIDDEN_KEY", key)
        folder, manifest = prepare(tmp_path)
        assert ("hidden_key" in manifest.parameters) == (key != "public")
        return {
            (split, part): {row.tobytes() for row in arrays(folder, split, part)[0]}
            for split in SPLITS
            for part in mad.PARTS
        }

    drawn = [content(key) for key in ("public", "1f" * 32, "2e" * 32)]
    for part in mad.PARTS:
        train, *again = (of_key["train", part] for of_key in drawn)
        assert again == [train, train]
        hidden = [of_key[split, part] for of_key in drawn for split in ("search", "test")]
        assert len(set.union(train, *hidden)) == len(train) + sum(map(len, hidden))
    assert content("1f" * 32) == drawn[1]


CAN_BE_ASKED = {
    "in_context_recall": range(8, 16), "fuzzy_recall": range(7, 15), "noisy_recall": range(8, 16),
    "selective_copying": range(14), "compression": range(16), "memorization": range(127, 255),
}  # fmt: skip


def slow_guess(part: str, row: list[int], at: int) -> int:
    """Return what ``commonest`` answers at a position, counted anew."""
    if part == "compression" and at == len(row) - 1:
        return 15
    so_far = row if part == "compression" else row[: at + 1]
    return max(CAN_BE_ASKED[part], key=so_far.count)  # of several, the smallest


def test_baselines_are_what_they_say(tmp_path: Path) -> None:
    folder, manifest = prepare(tmp_path)
    for suffix, split in (("", "search"), ("_test", "test")):
        means: dict[str, list[float]] = {"chance": [], "commonest": []}
        for part in mad.PARTS:
            hidden = list(rows(arrays(folder, split, part)))
            training = Counter(arrays(folder, "train", part)[1].ravel().tolist())
            blind = max(CAN_BE_ASKED[part], key=training.__getitem__)
            right: dict[str, list[bool]] = {"chance": [], "commonest": []}
            for row, asked in hidden:
                for at, token in enumerate(asked):
                    if token != -100:
                        right["chance"].append(token == blind)
                        right["commonest"].append(token == slow_guess(part, row, at))
            if part == "memorization":
                right["commonest"] = right["chance"]
                assert f"commonest.memorization{suffix}" not in manifest.baselines
            for name, hits in right.items():
                means[name].append(float(np.mean(hits)))
                if (name, part) != ("commonest", "memorization"):
                    found = manifest.baselines[f"{name}.{part}{suffix}"]
                    assert found == pytest.approx(np.mean(hits), abs=1e-6)
        for name, shares in means.items():
            found = manifest.baselines[f"{name}{suffix}"]
            assert found == pytest.approx(np.mean(shares), abs=1e-6)


def test_chance_at_the_original_sizes(original: tuple[Path, Manifest]) -> None:
    uniform = {
        "in_context_recall": 1 / 8, "fuzzy_recall": 1 / 8, "noisy_recall": 1 / 8,
        "selective_copying": 1 / 14, "compression": 31 / 32 / 15, "memorization": 1 / 127,
    }  # fmt: skip
    found = original[1].baselines
    for suffix in ("", "_test"):
        for part, share in uniform.items():
            assert found[f"chance.{part}{suffix}"] == pytest.approx(share, rel=0.15)
        assert found[f"chance{suffix}"] == pytest.approx(np.mean(list(uniform.values())), rel=0.05)
        for part in mad.PARTS[:-1]:
            ratio = found[f"commonest.{part}{suffix}"] / found[f"chance.{part}{suffix}"]
            assert 1.3 < ratio < 3.2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parts": "in_context_recall,copying"}, "'copying' is no part of MAD; write some of"),
        ({"parts": ""}, "'' is no part of MAD"),
        ({"parts": "compression, compression"}, "'compression' stands there twice"),
        ({"length": 41}, "length is 41; wanted: a multiple of 2"),
        ({"memorization_length": 7}, "memorization_length is 7; wanted: a multiple of 2"),
        ({"copies": 18}, "copying_length is 36, but copies = 18 needs at least 38: raise copying_"),
        ({"length": 18}, "length is 18, but motif = 3 needs at least 20: raise length, or lower"),
        ({"vocabulary": 6}, "vocabulary is 6, but motif = 3 needs at least 7: raise vocabulary"),
        ({"vocabulary": 3}, "vocabulary is 3; wanted: greater than or equal to 4"),
        ({"memorization_vocabulary": 4}, "memorization_vocabulary is 4"),
        ({"vocabulary": 40_000}, "vocabulary is 40000"),
        ({"noise": 1.0}, "noise is 1.0; wanted: less than 1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"train": 0}, "train is 0; wanted: greater than or equal to 1"),
        ({"memorization_train": 0}, "memorization_train is 0"),
        ({"search": -1}, "search is -1"),
        ({"test": 0}, "test is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"lenght": 32}, "lenght is unknown; did you mean 'length'"),
    ],
)
def test_silly_parameters_are_refused(
    tmp_path: Path, changes: dict[str, Value], sentence: str
) -> None:
    with pytest.raises(ConfigError) as error:
        prepare(tmp_path, **changes)
    assert sentence in str(error.value)
    assert not list(tmp_path.iterdir())


def test_every_parameter_must_be_named(tmp_path: Path) -> None:
    for name in SMALL:
        short = {key: value for key, value in SMALL.items() if key != name}
        with pytest.raises(ConfigError, match=f"{name} is missing"):
            mad.prepare("smoke", short, tmp_path, lambda *_: None)


def test_least_sizes_can_be_drawn(tmp_path: Path) -> None:
    _, manifest = prepare(
        tmp_path, train=1, memorization_train=1, search=2, test=2, vocabulary=7, length=20,
        copies=1, copying_length=4, compression_length=2, memorization_vocabulary=5,
        memorization_length=2,
    )  # fmt: skip
    assert all(0 <= value <= 1 for value in manifest.baselines.values())


def test_the_kind_accepts_these_data_and_names_what_is_wrong_with_others(tmp_path: Path) -> None:
    folder, manifest = prepare(tmp_path, parts="memorization,compression")
    for split in ("train", "search", "test"):
        assert parts_fault(folder / split, manifest.rows[split], manifest.shape) == ""
    inputs = np.load(folder / "search" / "compression_inputs.npy")
    wrong = {
        "is of float64": ("inputs", inputs.astype(float)),
        "two rows or more": ("inputs", inputs[:1]),
        "wanted: integers (rows, length)": ("inputs", inputs[0]),
        "holds 99; wanted: 0 to 15": ("inputs", np.full_like(inputs, 99)),
        "holds -1; wanted: 0 to 15": ("targets", np.full(inputs.shape, -1)),
        "holds -100": ("inputs", np.full(inputs.shape, IGNORED)),
        "has the shapes": ("targets", np.zeros((9, 9), int)),
    }
    for said, (what, array) in wrong.items():
        file = folder / "search" / f"compression_{what}.npy"
        before = file.read_bytes()
        np.save(file, array)
        assert said in parts_fault(folder / "search", 9, manifest.shape)
        file.write_bytes(before)
    assert "no NAME.vocabulary" in parts_fault(folder / "search", 9, {})
