"""Tests the data of the Autoresearch task: folder, tokenizer, n-gram reference, overlap, sources.

The download of climbmix is tested in test_autoresearch_download.py.
"""

import json
import math
import os
import re
import shutil
import stat
import threading
from collections import Counter, defaultdict
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from calling import call
from filelock import FileLock

from harness.base.errors import ConfigError
from tasks.autoresearch import data, reference, sources, tokenizer
from tasks.autoresearch.overlap import Overlap, runs
from tasks.definition import Manifest, Value

SMALL: dict[str, Value] = {
    "source": "bundled", "vocabulary": 320, "length": 32, "rows": 30, "audit_tokens": 3000,
    "max_characters": 300_000, "max_document": 400,
}  # fmt: skip


def silent(what: str, done: int, total: int) -> None:
    pass


def prepare(root: Path, **changes: Value) -> Path:
    return data.prepare("smoke", {**SMALL, **changes}, root, silent)


def manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "manifest.json").read_text())


def documents(folder: Path, name: str) -> list[tuple[int, ...]]:
    """Return the documents in ``{name}tokens.npy``, each with its BOS, split at its starts."""
    tokens = np.load(folder / f"{name}tokens.npy").tolist()
    starts = np.load(folder / f"{name}starts.npy").tolist()
    assert starts[0] == 0
    assert starts[-1] == len(tokens)
    return [tuple(tokens[a:b]) for a, b in pairwise(starts)]


def words_of(count: int, seed: int) -> str:
    letters = np.random.default_rng(seed).integers(0, 26, (count, 6))
    return " ".join("".join(chr(97 + i) for i in word) for word in letters)


@pytest.fixture(scope="module")
def prepared(data_folder) -> Path:
    return prepare(data_folder)


@pytest.fixture(scope="module")
def stored(prepared) -> tokenizer.Tokenizer:
    return tokenizer.Tokenizer.from_json((prepared / "train" / "tokenizer.json").read_text())


# What is in the folder


def test_the_folder_holds_what_runner_and_judge_expect(prepared, stored):
    said = manifest(prepared)
    bos = said.shape["bos"]
    assert said.shape == {"length": 32, "vocabulary": 320, "bos": stored.bos}
    assert bos == 316  # the last four ids are special tokens, BOS the first of them
    assert said.rows["search"] == said.rows["test"] == 30
    assert said.rows["train"] == len(np.load(prepared / "train" / "tokens.npy"))
    assert set(said.files) == {
        str(p.relative_to(prepared)) for p in prepared.rglob("*") if p.is_file()
    } - {"manifest.json"}
    for split in ("search", "test"):
        here = prepared / split
        rows = np.load(here / "rows.npy")
        audit = np.load(here / "audit_tokens.npy")
        assert (rows.shape, rows.dtype) == ((30, 33), np.uint16)
        assert (rows[:, 0] == bos).all()
        assert 3000 <= len(audit) < 3000 + 400
        for name, shape in (("rows", (30, 32)), ("audit", (4, len(audit)))):
            table = np.load(here / f"{name}_reference.npy")
            assert (table.shape, table.dtype) == (shape, np.float32)
            assert np.isfinite(table).all()
            assert (table <= 0).all()
        assert stat.S_IMODE(here.stat().st_mode) == 0o700
    for folder, name in (
        ("train", ""),
        ("train", "val_"),
        ("search", "audit_"),
        ("test", "audit_"),
    ):
        for document in documents(prepared / folder, name):
            assert document[0] == bos
            assert bos not in document[1:]


def test_no_document_is_in_two_places(prepared):
    bos = manifest(prepared).shape["bos"]
    places = {
        "train": documents(prepared / "train", ""),
        "val": documents(prepared / "train", "val_"),
        "search audit": documents(prepared / "search", "audit_"),
        "test audit": documents(prepared / "test", "audit_"),
    }
    assert all(len(set(found)) == len(found) > 2 for found in places.values())
    everything = [document for found in places.values() for document in found]
    assert len(set(everything)) == len(everything)
    fragments: dict[tuple[int, ...], str] = {}
    for split in ("search", "test"):
        for row in np.load(prepared / split / "rows.npy").tolist():
            starts = [i for i, token in enumerate(row) if token == bos]
            for a, b in pairwise([*starts, len(row)]):
                if b - a >= 24:  # two documents may begin with the same few tokens
                    assert fragments.setdefault(tuple(row[a:b]), split) == split
    beginnings = {document[: len(f)] for f in fragments for document in everything}
    assert len(fragments) > 20
    assert not beginnings & set(fragments)


def test_the_tokenizer_is_trained_on_training_text_only(prepared, stored):
    pool, _ = sources.pool("bundled", 300_000, 400, silent)
    source = sources.open_pool(pool, 0)
    hidden = set(source.hidden["test"])
    training = list(source.train())
    assert not hidden & set(training)
    assert 0.5 < sum(map(len, training)) / sum(map(len, pool)) < 0.65
    assert tokenizer.train(training, 320) == stored
    in_train = {stored.encoding.decode(d[1:]) for d in documents(prepared / "train", "")}
    assert set(training) <= in_train
    for split in ("search", "test"):
        audit = documents(prepared / split, "audit_")
        assert {stored.encoding.decode(d[1:]) for d in audit} <= hidden - in_train


def test_what_the_hidden_splits_did_not_need_is_trained_on(prepared):
    pool, _ = sources.pool("bundled", 300_000, 400, silent)
    bos = manifest(prepared).shape["bos"]
    rows = [np.load(prepared / split / "rows.npy") for split in ("search", "test")]
    elsewhere = ("train", "val_"), ("search", "audit_"), ("test", "audit_")
    held = sum(int((array == bos).sum()) for array in rows)
    held += sum(len(documents(prepared / folder, name)) for folder, name in elsewhere)
    assert len(documents(prepared / "train", "")) == len(pool) - held


def test_baselines_are_the_references_bits_per_byte(prepared):
    baselines = manifest(prepared).baselines
    for split in ("search", "test"):
        here = prepared / split
        size = np.load(here / "token_bytes.npy")[np.load(here / "rows.npy")[:, 1:]]
        table = np.load(here / "rows_reference.npy").astype(float)
        bits = -table[size > 0].sum() / math.log(2) / size.sum()
        assert baselines[f"ngram_{split}"] == pytest.approx(bits, abs=1e-6)
        # Text like this has about 4.5 bits per byte from single tokens, under 2.5 with context.
        assert baselines[f"ngram_{split}"] < 0.6 * baselines[f"unigram_{split}"] < 3.5


# Preparing it


def test_preparing_again_touches_nothing_and_damage_is_repaired(tmp_path):
    folder = prepare(tmp_path)
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert prepare(tmp_path) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    wanted = manifest(folder)
    raw = bytearray((folder / "search" / "rows.npy").read_bytes())
    raw[-1] ^= 1
    (folder / "search" / "rows.npy").write_bytes(raw)
    said = []
    data.prepare("smoke", SMALL, tmp_path, lambda what, done, total: said.append(what))
    assert any("search/rows.npy does not have the content" in what for what in said)
    assert manifest(folder) == wanted
    (folder / "test" / "audit_reference.npy").unlink()
    assert manifest(prepare(tmp_path)) == wanted
    assert (folder / "test" / "audit_reference.npy").exists()


def test_the_same_text_gives_the_same_data_whatever_the_cores_and_the_place(
    prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(5)))
    assert manifest(prepare(tmp_path / "five")).hash == manifest(prepared).hash
    assert manifest(prepare(tmp_path / "five", seed=2)).hash != manifest(prepared).hash


def test_two_that_prepare_at_once_build_it_once(tmp_path):
    said: list[list[str]] = [[], []]
    folders: list[Path] = []

    def work(number: int) -> None:
        tell = said[number]
        folders.append(data.prepare("smoke", SMALL, tmp_path, lambda w, d, t: tell.append(w)))

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len(folders) == 2, "one of them waits for ever"
    assert folders[0] == folders[1]
    assert sorted("checksums" in tell for tell in said) == [False, True]


def test_who_waits_for_another_process_says_so(prepared):
    waiting = threading.Event()

    def tell(what: str, done: int, total: int) -> None:
        if "waiting for another process" in what:
            waiting.set()

    thread = threading.Thread(target=data.prepare, args=("smoke", SMALL, prepared.parent, tell))
    with FileLock(prepared.parent / f".{prepared.name}.lock"):
        thread.start()
        assert waiting.wait(60)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()


def test_a_source_too_small_says_what_it_has_and_what_is_needed(tmp_path):
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path, audit_tokens=60_000)
    assert "bundled is too small for the profile smoke" in caught.value.message
    pool, _ = sources.pool("bundled", 300_000, 400, silent)
    encoder = tokenizer.train(sources.open_pool(pool, 0).train(), 320)
    tokens = sum(len(t) for _, t in encoder.encode(pool, 1))
    found = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\d", caught.value.cause)]
    assert any(abs(n - tokens) < 0.02 * tokens for n in found)
    assert 2 * 60_000 + 3 * 30 * 33 in found
    with pytest.raises(ConfigError, match="too small"):
        prepare(tmp_path, rows=5000)
    with pytest.raises(ConfigError, match=r"gives only .* of the 60,000 tokens"):
        prepare(tmp_path, vocabulary=60_004)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"vocabulary": 200}, "vocabulary"),
        ({"vocabulary": 70_000}, "vocabulary"),
        ({"byte_counts": "guessed"}, "byte_counts"),
        ({"rows": 0}, "rows"),
        ({"lenght": 9}, "lenght"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path, changes, word):
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path, **changes)
    assert word in caught.value.cause


# Tokens and their bytes


def test_special_tokens_in_a_text_are_only_text(stored):
    text = "a <|reserved_0|> b"
    ((_, tokens),) = stored.encode([text], 1)
    assert tokens[0] == stored.bos
    assert stored.bos not in tokens[1:]
    assert stored.encoding.decode(tokens[1:].tolist()) == text


def test_no_token_holds_more_than_two_digits():
    text = "\n".join(f"{n} in 2024, 1234567890" for n in range(3000))
    made = tokenizer.train([text] * 3, 340)
    assert max(sum(chr(b).isdigit() for b in token) for token in made.merges) == 2
    ((_, tokens),) = made.encode([text], 1)
    assert made.encoding.decode(tokens[1:].tolist()) == text


def test_a_tokenizer_survives_json_and_rubbish_does_not(stored):
    assert tokenizer.Tokenizer.from_json(stored.to_json()) == stored
    for text in ("", "[]", '{"format": 2}', '{"format": 1, "merges": [3]}'):
        with pytest.raises(ConfigError):
            tokenizer.Tokenizer.from_json(text)


def test_pieces_of_characters_count_their_own_bytes_or_three_as_in_public():
    singles = [bytes((b,)) for b in range(256)]
    made = tokenizer.Tokenizer(
        tokenizer.SPLIT_PATTERN,
        (*singles, b"\xe4\xb8", b"\xe4\xb8\xad", b"\xf0\x9f", b" \xf0\x9f", b"\x98\x80", b"ab"),
    )
    exact, public = made.token_bytes("exact"), made.token_bytes("public")
    # Two bytes of 中; all of 中; the first two bytes of 😀; a space and these two; the other two
    # bytes of 😀, each of which decodes to a U+FFFD of 3 bytes; and ASCII.
    assert exact[256:262].tolist() == [2, 3, 2, 3, 2, 2]
    assert public[256:262].tolist() == [3, 3, 3, 4, 6, 2]
    assert exact[:256].tolist() == [1] * 256
    assert public[:256].tolist() == [1] * 128 + [3] * 128
    assert exact[262:].tolist() == public[262:].tolist() == [0] * 4
    ((_, tokens),) = made.encode(["中 😀ab"], 1)
    assert exact[tokens].sum() == len("中 😀ab".encode()) == 10
    assert public[tokens].sum() == 3 + 4 + 6 + 2


def test_byte_counts_of_a_corpus_of_emoji_and_chinese(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(200):
        line = [chr(0x1F600 + i) + chr(0x4E00 + j) for i, j in rng.integers(0, 60, (60, 2))]
        (tmp_path / f"{number:03}.txt").write_text("".join(line), encoding="utf-8")
    # 260 ids: bytes and specials only, so each character is split into 4 or 3 tokens.
    small = {"source": str(tmp_path), "vocabulary": 260, "max_document": 0, "rows": 10}
    bits = {}
    for kind in ("exact", "public"):
        folder = prepare(tmp_path / "out", byte_counts=kind, **small)
        for split in ("train", "search", "test"):
            counts = np.load(folder / split / "token_bytes.npy")
            assert set(counts[128:256]) == {1 if kind == "exact" else 3}
        bits[kind] = manifest(folder).baselines["ngram_test"]
        assert manifest(folder).parameters["byte_counts"] == kind
    assert bits["exact"] == pytest.approx(3 * bits["public"], rel=1e-5)


# The reference


def padded(stream: list[int], at: int, k: int, bos: int) -> tuple[int, ...]:
    """Return the k tokens before ``at``, with BOS for everything before the last BOS."""
    context: list[int] = []
    for i in range(at - 1, at - 1 - k, -1):
        ended = i < 0 or (context and context[-1] == bos)
        context.append(bos if ended else stream[i])
    return tuple(reversed(context))


def kneser_ney(stream: list[int], vocabulary: int, bos: int):
    """Return p(k, context, token) by the textbook Kneser-Ney formula, with dictionaries."""
    raw = [
        Counter(padded(stream, t, k, bos) + (w,) for t, w in enumerate(stream)) for k in range(4)
    ]
    different: list[Counter] = []
    for k in range(3):
        befores = defaultdict(set)
        for gram in raw[k + 1]:
            befores[gram[1:]].add(gram[0])
        different.append(
            Counter({g: raw[k][g] if k and g[0] == bos else len(b) for g, b in befores.items()})
        )

    def discount(counts: Counter):
        n = Counter(counts.values())
        if min(n[1], n[2], n[3], n[4]) == 0:
            return lambda c: 0.75
        y = n[1] / (n[1] + 2 * n[2])
        each = [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]
        each = [min(max(d, 0.05), c - 0.05) for c, d in zip((1, 2, 3), each, strict=True)]
        return lambda c: each[min(c, 3) - 1]

    discounts = {id(c): discount(c) for c in (*raw, *different)}

    def p(counts: Counter, k: int, context: tuple[int, ...], token: int) -> float:
        below = p(different[k - 1], k - 1, context[1:], token) if k else 1 / vocabulary
        here = {g: c for g, c in counts.items() if g[:-1] == context}
        if not here:
            return below
        off, total = discounts[id(counts)], sum(here.values())
        own = here.get((*context, token), 0)
        freed = sum(off(c) for c in here.values())
        return (own - off(own) if own else 0) / total + freed / total * below

    return lambda k, context, token: p(raw[k], k, context, token)


@pytest.fixture(scope="module")
def chain():
    """A stream of 12 different tokens, where 11 is BOS, and the model trained on it."""
    rng = np.random.default_rng(1)
    stream = [11]
    while len(stream) < 3000:
        step = rng.choice((1, 1, 1, 2, 5))
        stream.append(11 if rng.random() < 0.08 else int((sum(stream[-2:]) + step) % 10))
    tokens = np.array(stream, np.uint16)
    return stream, reference.train(tokens, 12, 11)


def test_the_reference_is_the_textbook_model(chain):
    stream, model = chain
    textbook = kneser_ney(stream, 12, 11)
    held = [11, 3, 4, 8, 2, 1, 4, 11, 5, 10, 6, 2, 11, 11, 7, 9, 7, 8]
    table = model.log_probabilities(np.array(held, np.uint16))
    for t in range(1, len(held)):
        for k in range(4):
            wanted = math.log(textbook(k, padded(held, t, k, 11), held[t]))
            assert table[k, t] == pytest.approx(wanted, abs=1e-4), (k, t)
    assert (table[:, 0] == table[0, 0]).all()


@pytest.mark.parametrize(
    "before",
    [[11], [11, 3], [11, 3, 4], [11, 3, 4, 8], [11, 10, 10, 10], [11, 2, 11], [11, 1, 11, 10]],
)
def test_every_distribution_of_the_reference_sums_to_one(chain, before):
    _, model = chain
    total = np.zeros(4)
    for token in range(12):
        stream = np.array([*before, token], np.uint16)
        total += np.exp(model.log_probabilities(stream)[:, -1].astype(float))
    assert total == pytest.approx([1] * 4, abs=2e-4)


def test_the_reference_knows_k_tokens_and_nothing_before_a_document(chain):
    _, model = chain
    one = model.log_probabilities(np.array([11, 1, 2, 3, 4, 5, 11, 6, 7, 8], np.uint16))
    other = model.log_probabilities(np.array([11, 9, 9, 3, 4, 5, 11, 6, 7, 8], np.uint16))
    assert (one[:, 7:] == other[:, 7:]).all()
    assert (one[1, 4:] == other[1, 4:]).all()
    assert one[3, 4] != other[3, 4]
    assert (one[3, 6:] == other[3, 6:]).all()


def test_a_long_stream_is_read_in_parts_without_a_seam(chain, monkeypatch):
    stream, model = chain
    tokens = np.array(stream[:500], np.uint16)
    whole = model.log_probabilities(tokens)
    monkeypatch.setattr(reference, "QUERIES_AT_ONCE", 37)
    assert (model.log_probabilities(tokens) == whole).all()


# Overlap


def test_overlap_counts_shared_runs_of_thirteen_words():
    twenty, other = words_of(20, 1), words_of(40, 2)
    # 20 words hold 8 runs. The first 16 words, in capitals and with commas, give 4 runs.
    shown = ", ".join(twenty.upper().split()[:16]) + " \u2026 " + words_of(30, 3)
    overlap = Overlap([twenty, other, "too short"])
    for hashes in runs([words_of(100, 4), shown]):
        overlap.look_at(hashes)
    assert overlap.share == pytest.approx(4 / (8 + 28))


def test_no_run_crosses_the_end_of_a_document():
    text = words_of(20, 1).split()
    overlap = Overlap([" ".join(text)])
    for hashes in runs([" ".join(text[:10]), " ".join(text[10:])]):
        overlap.look_at(hashes)
    assert overlap.share == 0


def test_overlap_of_a_sample_is_near_that_of_all(monkeypatch):
    texts = [words_of(60, seed) for seed in range(2000)]
    shown = [*texts[:500], *(words_of(60, 10_000 + seed) for seed in range(500))]
    monkeypatch.setattr("tasks.autoresearch.overlap.SAMPLE", 5000)
    monkeypatch.setattr("tasks.autoresearch.overlap.BYTES_AT_ONCE", 20_000)
    overlap = Overlap(texts, threads=2)
    for hashes in runs(shown, threads=2):
        overlap.look_at(hashes)
    assert overlap.share == pytest.approx(0.25, abs=0.03)


def test_copies_between_train_and_hidden_are_reported(tmp_path):
    # Every second of the 400 texts of 80 words ends with the same 40 words.
    shared = words_of(40, 99)
    lines = [
        words_of(40, i) + " " + (shared if i % 2 else words_of(40, 1000 + i)) for i in range(400)
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = prepare(tmp_path, source=str(tmp_path / "in"), max_document=0)
    said = manifest(folder).parameters
    # 28 of a copy's 68 runs lie within the 40 words; half of the texts are copies.
    for split in ("search", "test"):
        assert said[f"overlap_{split}"] == pytest.approx(0.5 * 28 / 68, abs=0.1)


def test_documents_that_nearly_repeat_others_are_dropped_on_request(tmp_path):
    texts = [words_of(300, i) for i in range(60)]
    edited = [" ".join((*text.split()[:280], *words_of(20, 900 + i).split()))
              for i, text in enumerate(texts[:20])]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(t) + "\n" for t in [*texts, *edited]))
    small = {"source": str(tmp_path), "max_document": 0, "rows": 5, "audit_tokens": 3000}
    folder = prepare(tmp_path / "out", near_duplicates=0.5, **small)
    assert manifest(folder).parameters["duplicates_dropped"] == 20
    assert manifest(folder).parameters["overlap_test"] == 0
    folder = prepare(tmp_path / "out", **small)
    assert manifest(folder).parameters["duplicates_dropped"] == 0
    assert manifest(folder).parameters["overlap_test"] > 0


# A folder as the source


@pytest.fixture
def texts(tmp_path) -> Path:
    folder = tmp_path / "texts"
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text(words_of(30, 1))
    (folder / "below" / "b.md").write_text("# Größe\n\n" + words_of(30, 2), encoding="utf-8")
    lines = [json.dumps({"text": words_of(30, 3), "id": 1}), json.dumps(words_of(30, 4)), ""]
    (folder / "c.jsonl").write_text("\n".join([*lines, json.dumps("lone \ud800 half")]))
    pq.write_table(
        pa.table({"text": [words_of(30, 5), None, words_of(30, 1)]}), folder / "d.parquet"
    )
    (folder / "ignored.bin").write_bytes(b"\xff\xfe")
    (folder / ".hidden.txt").write_text("not this")
    return folder


def test_a_folder_of_all_kinds_is_read(texts):
    found, duplicates = sources.pool(str(texts), 0, 0, silent)
    wanted = {words_of(30, i) for i in (1, 3, 4, 5)} | {"# Größe\n\n" + words_of(30, 2)}
    assert set(found) == wanted | {"lone \ufffd half"}
    assert duplicates == 1  # d.parquet repeats a.txt


def test_a_long_text_file_becomes_several_documents(tmp_path):
    paragraphs = [words_of(200, seed) for seed in range(40)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    found, _ = sources.pool(str(tmp_path), 0, 0, silent)
    assert all(2500 < len(text) <= 10_000 for text in found)
    again = {paragraph for text in found for paragraph in text.split("\n\n")}
    assert again == set(paragraphs)  # cut between paragraphs, nothing lost


def test_a_changed_folder_is_prepared_anew(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for number in range(400):
        (place / f"{number}.txt").write_text(words_of(50, number))
    first = prepare(tmp_path, source=str(place))
    assert prepare(tmp_path, source=str(place)) == first
    moved = shutil.copytree(place, tmp_path / "elsewhere")
    assert manifest(prepare(tmp_path, source=str(moved))).hash == manifest(first).hash
    (place / "5.txt").write_text(words_of(50, 999))
    second = prepare(tmp_path, source=str(place))
    assert second != first
    assert manifest(second).hash != manifest(first).hash


def broken_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": ["a" * 1000] * 50}), path)
    path.write_bytes(path.read_bytes()[:-200])


FAULTS = {
    "latin.txt": (lambda p: p.write_bytes("Größe".encode("latin-1")), "is not UTF-8"),
    "bad.jsonl": (lambda p: p.write_text('"fine"\n{"text": \n'), "line 2, is not JSON"),
    "other.jsonl": (lambda p: p.write_text('{"body": "a"}\n'), "line 1, holds no text"),
    "cut.parquet": (broken_parquet, "cannot be used as a parquet file"),
    "plain.parquet": (lambda p: p.write_text("no parquet"), "cannot be used as a parquet file"),
    "columns.parquet": (
        lambda p: pq.write_table(pa.table({"body": ["a"]}), p),
        "cannot be used as a parquet file",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_read_is_named(texts, tmp_path, name):
    write, words = FAULTS[name]
    write(texts / name)
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path, source=str(texts))
    assert str(texts / name) in caught.value.message
    assert words in caught.value.message


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="There is no folder"):
        prepare(tmp_path, source=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no text"):
        prepare(tmp_path, source=str(tmp_path / "empty"))


# harness prepare


TASK = """
format = 1
name = "texts"
title = "The data of autoresearch in a small size"
kind = "language_modeling"
metric = "bits_per_byte"
direction = "minimize"
module = "texts"
files = ["train.py"]
runner = ["runner.py"]
entry = "runner.py"

[profiles.test]
about = "Small."
search_steps = 1
data = { source = "bundled", byte_counts = "exact", shards = 2, vocabulary = 320, length = 32, \
rows = 30, audit_tokens = 3000, max_characters = 300_000, max_document = 400 }
settings = { max_batch = 8 }
judge = { audit_rows = 8, gap = 4, twins = 4, repeats = 4 }
limits = { train_s = 1, serve_s = 1, memory_mb = 1, cpus = 1 }
"""


@pytest.fixture
def harness_prepare(tmp_path, monkeypatch):
    """Return a function that runs ``harness prepare``; a small task, ``texts``, is added."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "task.toml").write_text(TASK.replace("\\\n", ""))
    module = "from tasks.autoresearch.data import prepare as prepare\n"
    (tmp_path / "tasks" / "texts.py").write_text(module)
    (tmp_path / "tasks" / "runner.py").write_text("")
    (tmp_path / "tasks" / "description.md").write_text("Texts.\n")
    monkeypatch.setenv("HARNESS_TASKS_DIR", str(tmp_path / "tasks"))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    return partial(call, "prepare", cwd=tmp_path)


def test_the_command_says_what_was_made(harness_prepare, tmp_path):
    done = harness_prepare("texts", "--profile", "test", "--json")
    assert "encoding" in done.stderr or "training the tokenizer" in done.stderr
    said = done.json
    folder = Path(said["path"])
    assert folder.parent == tmp_path / "data"
    assert said["hash"] == manifest(folder).hash
    done = harness_prepare("texts", "--profile", "test")
    assert "tokenizer" not in done.stderr  # the data were there already
    for word in (str(folder), "bundled", said["hash"], "runs of 13 words in test", "bits per byte"):
        assert word in done.stdout


def test_the_command_says_where_the_text_comes_from_and_how_bytes_count(harness_prepare, tmp_path):
    (tmp_path / "mine").mkdir()
    texts, _ = sources.pool("bundled", 300_000, 0, silent)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "mine" / "a.jsonl").write_text(lines)
    args = ("texts", "--profile", "test", "--data", "mine", "--byte-counts", "public", "--json")
    parameters = harness_prepare(*args).json["manifest"]["parameters"]
    assert parameters["source"] == str(tmp_path / "mine")
    assert parameters["byte_counts"] == "public"
    done = harness_prepare("texts", "--profile", "test", "--data", "nowhere", code=2)
    assert "There is no folder" in done.stderr


def test_the_command_prepares_other_tasks_and_refuses_what_they_lack(harness_prepare):
    assert "512 rows" in harness_prepare("lra/listops", "--profile", "test").stdout
    done = harness_prepare("lra/listops", "--profile", "test", "--data", "bundled", code=2)
    assert "no choice of source" in done.stderr


def test_a_value_that_is_none_of_the_tasks_choices_is_refused_before_anything_is_made(
    harness_prepare, tmp_path
):
    done = harness_prepare("autoresearch", "--profile", "test", "--byte-counts", "exakt", code=2)
    assert "byte_counts 'exakt'" in done.stderr
    assert "exact" in done.stderr.partition("try:")[2]
    assert not (tmp_path / "data").exists()
