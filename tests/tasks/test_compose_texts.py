"""Tests language modelling on texts: the bundled corpus, and files of the user's in their format.

The files of BabiStories and DCLM are tiny ones made here: the real ones are not needed.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray

from harness.base.digests import digest
from harness.base.errors import ConfigError
from tasks.autoresearch import sources, tokenizer
from tasks.compose import language
from tasks.compose.babistories import data as babistories
from tasks.compose.dclm.data import documents
from tasks.compose.text import data as text
from tasks.definition import Manifest
from tasks.kinds import parts_fault
from tasks.shared import SPLITS
from tasks.spec import all_tasks, find_task

FAMILY = ("compose/stories", "compose/text", "compose/babistories", "compose/dclm")
STAND_INS = {"compose/stories": "compose/babistories", "compose/text": "compose/dclm"}
KEY = "cd" * 32


def prepare(name: str, root: Path, source: Path | str | None = None) -> tuple[Path, Manifest]:
    given = {} if source is None else {"source": str(source)}
    folder, manifest = find_task(name).prepare("test", root, lambda *_: None, given)
    for split in SPLITS:
        assert parts_fault(folder / split, manifest.rows[split], manifest.shape) == ""
    return folder, manifest


def fails(name: str, root: Path, source: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(name, root, source)
    assert not [p for p in root.glob("*") if p.is_dir()], (
        "something was left that may pass for data"
    )
    return str(caught.value)


def rows(folder: Path, split: str, part: str) -> NDArray[Any]:
    """Return the rows of a split, with their last tokens; inputs and targets must fit together."""
    inputs, targets = (
        np.load(folder / split / f"{part}_{what}.npy") for what in ("inputs", "targets")
    )
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    return np.column_stack([inputs, targets[:, -1]])


def contents(folder: Path) -> dict[str, list[bytes]]:
    return {s: [f.read_bytes() for f in sorted((folder / s).iterdir())] for s in SPLITS}


# ---------------------------------------------------------------- the four tasks


def test_a_stand_in_never_has_the_real_name() -> None:
    for name in FAMILY:
        definition = find_task(name).definition
        assert definition.stands_in_for == STAND_INS.get(name)
        assert (definition.kind, definition.metric) == ("proxies_loss", "cross_entropy")
        for profile in definition.profiles.values():
            # What is made or bundled stands under its own name, and the true set is the user's.
            made = profile.data.get("source", "generated") != "given"
            assert made == (name in STAND_INS)
        assert bool(definition.references) == (name not in STAND_INS)
        assert all(one.disputed and "stated" in one.note for one in definition.references)


def test_all_have_the_models_and_designs_of_mad() -> None:
    mad = find_task("compose/mad")
    sizes = ("layers", "dim", "heads", "mlp_dim", "state", "expansion", "head_dim", "convolution")
    for name in FAMILY:
        task = find_task(name)
        assert task.definition.sequence == mad.definition.sequence
        assert list(task.definition.profiles) == list(mad.definition.profiles)
        for profile in task.definition.profiles:
            ours, theirs = task.profile(profile).settings, mad.profile(profile).settings
            assert [ours[size] for size in sizes] == [theirs[size] for size in sizes]
            assert len(task.designs(profile)) >= 3
    assert len({t.hash(p) for t in all_tasks().values() for p in t.definition.profiles}) == sum(
        len(t.definition.profiles) for t in all_tasks().values()
    )


@pytest.mark.parametrize("name", FAMILY)
def test_descriptions_are_complete(name: str) -> None:
    task = find_task(name)
    for profile in task.definition.profiles:
        described = task.description(profile)
        assert "{" not in described
        assert "<!--" not in described
        assert "**Lower is better.**" in described
        headings = re.findall(r"^## (.*)$", described, re.MULTILINE)
        assert headings == ["The primitives", "The model", "The task", "The file"]
        for other in FAMILY:
            assert other not in described


# ---------------------------------------------------------------- the bundled corpus


def test_no_page_is_in_two_splits_and_a_key_moves_hidden_ones_alone() -> None:
    pages = sorted((f"page {n} " * (1 + n % 7) for n in range(300)), key=sources.fingerprint)
    public, secret = text.split_pages(pages), text.split_pages(pages, 12345)
    for found in (public, secret):
        assert sorted(page for split in SPLITS for page in found[split]) == sorted(pages)
    assert public["train"] == secret["train"]
    assert set(public["test"]) != set(secret["test"])
    whole = sum(map(len, pages))
    for found in (public, secret):
        shares = {split: sum(map(len, found[split])) / whole for split in SPLITS}
        assert shares == pytest.approx({"train": 0.6, "search": 0.2, "test": 0.2}, abs=0.01)
    assert text.split_pages([]) == {"train": [], "search": [], "test": []}
    assert text.split_pages(pages, 12346)["test"] != secret["test"]


def test_the_bundled_corpus_becomes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, manifest = prepare("compose/text", tmp_path)
    assert manifest.shape == {"text.vocabulary": 320, "text.length": 32}
    assert manifest.rows == {"train": 64, "search": 64, "test": 64}
    begin = 320 - len(tokenizer.SPECIALS)
    for split in SPLITS:
        assert (rows(folder, split, "text")[:, 0] == begin).all()
    for suffix in ("", "_test"):
        losses = [
            manifest.baselines[f"{name}{suffix}"] for name in ("bigram", "unigram", "uniform")
        ]
        assert losses == sorted(losses)
        assert f"entropy{suffix}" not in manifest.baselines
    assert 1 < float(manifest.parameters["bytes_a_token"]) < 4
    assert prepare("compose/text", tmp_path)[1].hash == manifest.hash
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", KEY)
    secret, _ = prepare("compose/text", tmp_path)
    before, after = contents(folder), contents(secret)
    assert {split: before[split] == after[split] for split in SPLITS} == {
        "train": True, "search": False, "test": False,
    }  # fmt: skip


def test_rows_are_texts_of_their_own_split(tmp_path: Path) -> None:
    """Read back with the tokenizer, each document of a row stands in a page of that split."""
    p = text.CorpusParameters.model_validate(find_task("compose/text").profile("test").data)
    pages, _ = sources.pool(p.source, p.max_characters, 0, lambda *_: None)
    by_split = text.split_pages(pages)
    encoder = tokenizer.train(by_split["train"], p.vocabulary)
    folder, manifest = prepare("compose/text", tmp_path)
    assert manifest.parameters["tokenizer"] == encoder.hash
    for split in SPLITS:
        whole = "\0".join(by_split[split]).encode()
        for row in rows(folder, split, "text")[:10].tolist():
            for document in " ".join(map(str, row)).split(str(encoder.bos))[1:]:
                raw = b"".join(encoder.merges[int(token)] for token in document.split())
                assert raw.strip() in whole


def test_a_folder_of_texts_is_another_source(tmp_path: Path, pages: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    assert "holds no text" in fails("compose/text", tmp_path / "data", mine)
    said = fails("compose/text", tmp_path / "data", tmp_path / "nowhere")
    assert f"There is no folder {tmp_path / 'nowhere'}" in said
    assert "climbmix" not in said
    _, manifest = prepare("compose/text", tmp_path / "data", pages)
    assert (manifest.parameters["pages"], manifest.parameters["source"]) == (80, str(pages))


def test_too_little_text_is_told(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for n in range(10):
        (mine / f"{n}.txt").write_text(prose(n))
    said = fails("compose/text", tmp_path / "data", mine)
    assert f"The text of {mine} is too small for compose/text, profile test." in said
    assert "needs 64 rows of 33 tokens" in said


def test_a_missing_tokenizer_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rustbpe", None)
    with pytest.raises(ConfigError, match=r"aira-harness\[autoresearch\]"):
        prepare("compose/text", tmp_path)


def test_data_that_are_there_need_no_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = prepare("compose/text", tmp_path)
    monkeypatch.setitem(sys.modules, "rustbpe", None)
    assert prepare("compose/text", tmp_path)[0] == made


def prose(seed: int) -> str:
    """Return about a thousand characters that differ from those of another seed."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("etaoin shrdlu cmfwyp "), 1000)
    return "".join(letters)


# ---------------------------------------------------------------- BabiStories


def write_stream(file: Path, ids: Any) -> None:
    np.asarray(ids, "<u2").tofile(file)


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """A folder with 100 and 80 blocks of 32 ids, each block's number among its ids."""
    folder = tmp_path / "babistories"
    folder.mkdir()
    for name, blocks, begin in (("train.bin", 100, 1000), ("val.bin", 80, 2000)):
        ids = np.tile(np.arange(32) % 11, (blocks, 1))
        ids[:, 5] = begin + np.arange(blocks)
        ids[:, 20] = babistories.END_OF_TEXT
        write_stream(folder / name, [*ids.reshape(-1), 7])
    return folder


def test_babistories_are_read_in_blocks(
    tmp_path: Path, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 blocks are for test. Of the 100 others, the last 50 are for search."""
    seen: list[NDArray[Any]] = []
    whole = language.language_arrays

    def look(part: str, rows: Any, *others: Any, **more: Any) -> Any:
        seen.append(rows)
        return whole(part, rows, *others, **more)

    used: list[NDArray[Any]] = []
    honest = babistories._blocks
    monkeypatch.setattr(babistories, "language_arrays", look)
    monkeypatch.setattr(
        babistories, "_blocks", lambda *what: used.append(honest(*what)) or used[-1]
    )
    folder, manifest = prepare("compose/babistories", tmp_path / "data", stories)
    assert manifest.rows == {"train": 50, "search": 50, "test": 64}
    assert manifest.shape == {"babistories.vocabulary": 64, "babistories.length": 32}
    train, search, test = used
    assert train[:, 5].tolist() == list(range(1000, 1050))
    assert search[:, 5].tolist() == list(range(1050, 1100))
    assert set(test[:, 5].tolist()) < set(range(2000, 2080))
    # A block has the token after it, which is the next block's first.
    assert (train[:, 32] == 0).all()
    assert (rows(folder, "train", "babistories") == seen[0]["train"]).all()

    monkeypatch.setenv("HARNESS_HIDDEN_KEY", KEY)
    secret, _ = prepare("compose/babistories", tmp_path / "data", stories)
    assert contents(folder)["train"] == contents(secret)["train"]
    chosen = [set(test[:, 5].tolist()) for test in (used[2], used[5])]
    assert chosen[0] != chosen[1]
    assert all(one < set(range(2000, 2080)) for one in chosen)


def test_the_commonest_ids_are_kept_and_all_others_are_one() -> None:
    table = babistories.commonest(np.array([[9, 9, 9, 4, 4, 30_000, 8, 8]]), 4)
    assert len(table) == babistories.GPT2
    assert table[[babistories.END_OF_TEXT, 9, 4]].tolist() == [0, 1, 2]  # of 4 and 8 the lower
    assert table[[8, 30_000, 0]].tolist() == [3, 3, 3]
    assert (table == 3).sum() == babistories.GPT2 - 3


def test_how_much_is_other_is_told(tmp_path: Path, stories: Path) -> None:
    """64 ids are 11 of the pattern, the end of a text, 51 of the numbers, and "other"."""
    folder, manifest = prepare("compose/babistories", tmp_path / "data", stories)
    test = rows(folder, "test", "babistories")
    assert (test[:, 5] == 63).all()
    assert (test[:, 20] == 0).all()
    assert manifest.parameters["other"] == pytest.approx(1 / 32, abs=1e-6)


def remove(file: Path) -> None:
    file.unlink()


BAD_STREAMS: dict[str, Callable[[Path], object]] = {
    "there is no file val.bin; it has train.bin": remove,
    "multiple of the data-type size": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "empty file": lambda file: file.write_bytes(b""),
    "holds the id 60,000, which GPT-2 does not have": lambda file: write_stream(
        file, [60_000] * 5000
    ),
    "it has 1 blocks of 32 tokens for test": lambda file: write_stream(file, range(40)),
    "it has 0 blocks of 32 tokens for test": lambda file: write_stream(file, range(20)),
}


@pytest.mark.parametrize("wanted", BAD_STREAMS)
def test_a_bad_stream_is_told(tmp_path: Path, stories: Path, wanted: str) -> None:
    BAD_STREAMS[wanted](stories / "val.bin")
    said = fails("compose/babistories", tmp_path / "data", stories)
    assert wanted in said
    assert str(stories) in said
    assert "Try: " in said


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, stories: Path) -> None:
    (stories / "val.bin").unlink()
    (stories / "val.bin").mkdir()
    assert "no file val.bin" in fails("compose/babistories", tmp_path / "data", stories)


def test_both_files_must_have_a_block_to_spare(tmp_path: Path, stories: Path) -> None:
    write_stream(stories / "train.bin", range(100))
    said = fails("compose/babistories", tmp_path / "data", stories)
    assert f"{stories / 'train.bin'} is too small." in said


# ---------------------------------------------------------------- DCLM


def line_of(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


@pytest.fixture
def dclm(tmp_path: Path) -> Path:
    """A folder of two files, one of them below it and of two frames, with repeats and blanks."""
    folder = tmp_path / "dclm"
    (folder / "global-shard_01").mkdir(parents=True)
    lines = [line_of({"text": prose(n), "url": "https://a.example"}) for n in range(120)]
    pack = zstandard.ZstdCompressor().compress
    (folder / "a.jsonl.zst").write_bytes(pack(b"".join(lines[:70])))
    frames = [b"".join(lines[60:90]), b"\n" + line_of({"text": " "}), b"".join(lines[90:])]
    (folder / "global-shard_01" / "b.jsonl.zst").write_bytes(b"".join(map(pack, frames)))
    (folder / "README").write_text("not a file of documents")
    return folder


def test_dclm_is_read_each_document_once(
    tmp_path: Path, dclm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = prepare("compose/dclm", tmp_path / "data", dclm)
    # The profile reads 100,000 characters at most: 70 documents and 30, of which 10 are repeats.
    assert manifest.parameters["pages"] == 90
    assert manifest.shape == {"dclm.vocabulary": 320, "dclm.length": 32}
    assert (rows(folder, "test", "dclm")[:, 0] == 316).all()
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", KEY)
    secret, _ = prepare("compose/dclm", tmp_path / "data", dclm)
    before, after = contents(folder), contents(secret)
    assert {split: before[split] == after[split] for split in SPLITS} == {
        "train": True, "search": False, "test": False,
    }  # fmt: skip


BAD_LINES = {
    "line 2, cannot be read.\nCause: it is not JSON": b'{"text": "half',
    'line 2, cannot be read.\nCause: it is no object with a string "text"': b'{"text": 3}',
    'it is no object with a string "text"': b"[]",
    "line 2, cannot be read.\nCause: it is not JSON: 'utf-8' codec can't decode": b'"\xff"',
    "line 2, cannot be read.\nCause: it is not JSON: maximum recursion": b"[" * 200_000,
}


@pytest.mark.parametrize("wanted", BAD_LINES)
def test_a_bad_line_is_told(tmp_path: Path, dclm: Path, wanted: str) -> None:
    bad = line_of({"text": "good"}) + BAD_LINES[wanted] + b"\n"
    (dclm / "a.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(bad))
    said = fails("compose/dclm", tmp_path / "data", dclm)
    assert f"{dclm / 'a.jsonl.zst'}, " in said
    assert wanted in said


@pytest.mark.parametrize("content", [b"no zstd at all", b"\x28\xb5\x2f\xfd" + b"\xff" * 40])
def test_what_is_no_zstd_is_told(tmp_path: Path, dclm: Path, content: bytes) -> None:
    (dclm / "a.jsonl.zst").write_bytes(content)
    said = fails("compose/dclm", tmp_path / "data", dclm)
    assert f"{dclm / 'a.jsonl.zst'}, after line 0, cannot be read." in said


def test_a_file_that_was_cut_off_is_told(tmp_path: Path, dclm: Path) -> None:
    file = dclm / "a.jsonl.zst"
    file.write_bytes(file.read_bytes()[:-300])
    said = fails("compose/dclm", tmp_path / "data", dclm)
    assert f"{file}, after line " in said
    assert "it ends in the middle" in said


def test_a_line_without_end_is_not_read_into_memory(
    tmp_path: Path, dclm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.compose.dclm.data.MOST_BYTES", 900)
    said = fails("compose/dclm", tmp_path / "data", dclm)
    assert "line 1, cannot be read.\nCause: it is longer than 900 bytes" in said


def test_frames_may_be_many_and_the_last_line_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.jsonl.zst"
    pack = zstandard.ZstdCompressor().compress
    file.write_bytes(
        pack(b'{"text": "on') + pack(b'e"}\n{"text": "two"}\n') + pack(b'{"text": "3"}')
    )
    assert list(documents(file)) == ["one", "two", "3"]
    monkeypatch.setattr("tasks.compose.dclm.data.PIECE", 1)
    assert list(documents(file)) == ["one", "two", "3"]
    file.write_bytes(b"")
    assert list(documents(file)) == []


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl.zst"
    file.write_bytes(zstandard.ZstdCompressor().compress(b'{"text": "a\\ud800b"}\n'))
    assert list(documents(file)) == ["a\ufffdb"]


def test_a_folder_without_dclm_and_a_missing_package_are_told(
    tmp_path: Path, dclm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    said = fails("compose/dclm", tmp_path / "data", tmp_path / "other")
    assert "holds no DCLM" in said
    assert "it has a.txt" in said
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install 'aira-harness[data]'" in fails("compose/dclm", tmp_path / "data", dclm)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder of 80 pages."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for n in range(80):
        (folder / f"{n}.md").write_text(f"Page {n}. " + prose(n))
    return folder


@pytest.mark.parametrize(
    ("name", "source", "file"),
    [
        ("compose/babistories", "stories", "train.bin"),
        ("compose/dclm", "dclm", "a.jsonl.zst"),
        ("compose/text", "pages", "7.md"),
    ],
)
def test_a_changed_source_or_another_key_is_other_data(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    name: str,
    source: str,
    file: str,
) -> None:
    given: Path = request.getfixturevalue(source)
    first, manifest = prepare(name, tmp_path / "data", given)
    assert prepare(name, tmp_path / "data", given)[0] == first
    assert "hidden_key" not in manifest.parameters
    changed = given / file
    changed.write_bytes(2 * changed.read_bytes())
    second, _ = prepare(name, tmp_path / "data", given)
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", KEY)
    third, manifest = prepare(name, tmp_path / "data", given)
    assert len({first, second, third}) == 3
    assert manifest.parameters["hidden_key"] == digest(bytes.fromhex(KEY))


@pytest.mark.parametrize("name", ["compose/babistories", "compose/dclm"])
def test_a_true_set_that_was_not_given_is_asked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(name, tmp_path)
    assert f"{name} has no data of its own" in str(caught.value)
    assert "--data DIR, a folder with" in str(caught.value)
    said = fails(name, tmp_path / "data", tmp_path / "nowhere")
    assert f"There is no folder {tmp_path / 'nowhere'}" in said


# ---------------------------------------------------------------- guesses


def test_guesses_are_counted_on_training_rows() -> None:
    """After 1 comes 2 and after 2 comes 1, always: a bigram knows nearly all, a unigram nothing."""
    begin = np.zeros((400, 1), int)
    pairs = np.tile([[1, 2]], (400, 10))
    found = language.guesses(
        dict.fromkeys(SPLITS, np.hstack([begin, pairs])), 3, 0, lambda *_: None
    )
    assert found["uniform"] == found["uniform_test"] == np.log(3)
    assert found["unigram"] == pytest.approx(np.log(2), abs=0.1)
    assert found["bigram"] < 0.1
    assert set(found) == {
        f"{name}{suffix}"
        for name in ("uniform", "unigram", "bigram", "ngram")
        for suffix in ("", "_test")
    }


def test_large_vocabularies_have_wider_ids() -> None:
    assert language.id_dtype(32_767) is np.int16
    assert language.id_dtype(32_768) is np.int32
