"""The data of the Autoresearch task: a tokenizer, training tokens and the judge's hidden rows.

Each document goes to one of six places: training, the submission's own validation, and the scored
rows and the audits of each hidden split (search, test). No two places hold a document with the same
content. Near-duplicates that are left between training and a hidden split are measured, not
removed: the manifest gives the share of the hidden text's 13-word runs that also occur in the
training text. ``sources`` reads the text, and ``splits`` draws the documents.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from harness.base.digests import digest
from harness.base.errors import ConfigError
from harness.base.strict import Strict
from tasks.arrays import find_fault
from tasks.autoresearch import reference, sources, splits, tokenizer
from tasks.autoresearch.overlap import Overlap, runs, without_near_duplicates
from tasks.autoresearch.tokenizer import ByteCounts, Tokenizer, Tokens
from tasks.definition import Manifest, Progress, Value
from tasks.prepared import PreparationLock, check, checksum, prepared, write_manifest

GENERATOR = "autoresearch-1"
"""Raise the number whenever the same parameters and text would give other data."""

HIDDEN: tuple[sources.Hidden, ...] = ("test", "search")


class AutoresearchParameters(Strict):
    """What a profile's ``data`` table may hold.

    ``source`` is ``bundled``, ``climbmix`` or a folder. ``length`` is in tokens; a row holds one
    more. In each hidden split ``rows`` rows are scored, and the audits use documents of at least
    ``audit_tokens`` tokens in all. ``shards`` is the number of climbmix shards for training;
    ``max_characters`` limits the text (0: all). Two fields are for other corpora than climbmix:
    ``max_document`` limits the characters of a document, and documents are dropped that share more
    than ``near_duplicates`` of their 13-word runs with earlier ones (1: none are dropped).
    """

    source: str
    byte_counts: ByteCounts = "exact"
    shards: int = Field(default=10, ge=0)
    vocabulary: int = Field(ge=tokenizer.BYTES + len(tokenizer.SPECIALS), le=1 << 16)
    length: int = Field(ge=8, le=1 << 16)
    rows: int = Field(ge=1)
    audit_tokens: int = Field(ge=1)
    seed: int = Field(default=1, ge=0)
    max_characters: int = Field(default=0, ge=0)
    max_document: int = Field(default=0, ge=0)
    near_duplicates: float = Field(default=1.0, gt=0, le=1)

    @property
    def capacity(self) -> int:
        """Tokens of a row: inputs and targets overlap in all but one."""
        return self.length + 1


@dataclass(frozen=True)
class HiddenSplit:
    """What one hidden split holds: scored rows, and documents for the audits."""

    packed: splits.Packed
    audit: list[splits.Document]

    def texts(self) -> Iterator[str]:
        """Yield the texts that rows or audits were made of."""
        for text, _ in (*self.packed.used, *self.audit):
            yield text


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data`` is wrong, the source cannot be read or is too small, or
    ``root`` cannot be written; InfrastructureError if a download fails.
    """
    p = _parameters(profile, data)
    source = sources.identity(p.source, p.shards)
    return prepared(
        root,
        f"autoresearch-{profile}-{digest(GENERATOR + p.model_dump_json() + source)}",
        task="autoresearch",
        fault=lambda folder: find_fault(folder, p.model_dump(), _size_fault),
        build=lambda folder: _build(folder, profile, p, _open(p, root, progress), source, progress),
        progress=progress,
    )


def _size_fault(folder: Path, manifest: Manifest) -> str:
    """Open all arrays: numpy raises ValueError if a file is shorter than its header says."""
    for name in manifest.files:
        if name.endswith(".npy"):
            np.load(folder / name, mmap_mode="r")
    return ""


def _parameters(profile: str, data: Mapping[str, Value]) -> AutoresearchParameters:
    p = check(AutoresearchParameters, "autoresearch", profile, data)
    if p.source == "climbmix":
        return p.model_copy(update={"max_document": 0, "near_duplicates": 1.0})
    changes: dict[str, Value] = {"shards": 0}
    if p.source != "bundled":
        changes["source"] = str(Path(p.source).expanduser().resolve())
    return p.model_copy(update=changes)


def _open(p: AutoresearchParameters, root: Path, progress: Progress) -> sources.Corpus:
    if p.source == "climbmix":
        needed = splits.hidden_tokens(p.rows, p.capacity, p.audit_tokens)
        with PreparationLock(root / ".climbmix.lock", progress):
            return sources.open_climbmix(
                root / "climbmix", p.shards, needed, p.max_characters, progress
            )
    documents, dropped = sources.pool(p.source, p.max_characters, p.max_document, progress)
    if p.near_duplicates < 1:

        def report(done: int, total: int) -> None:
            progress("looking for near-duplicates, documents", done, total)

        count = len(documents)
        documents = without_near_duplicates(documents, p.near_duplicates, report)
        dropped += count - len(documents)
    return sources.open_pool(documents, dropped)


def _build(
    folder: Path,
    profile: str,
    p: AutoresearchParameters,
    source: sources.Corpus,
    identity: str,
    progress: Progress,
) -> None:
    """Write all of the data into the empty ``folder``, the manifest last."""
    threads = len(os.sched_getaffinity(0))
    train = folder / "train"
    train.mkdir()

    progress("training the tokenizer", 0, 1)
    encoder = tokenizer.train(source.train(), p.vocabulary)
    (train / "tokenizer.json").write_text(encoder.to_json())
    progress("training the tokenizer", 1, 1)

    seen: set[bytes] = set()
    hidden, validation, left = _draw(profile, p, source, encoder, seen, threads, progress)
    for _ in splits.write_documents(validation, train, "val_"):
        pass
    overlaps = {split: Overlap(hidden[split].texts(), threads) for split in HIDDEN}

    def report(millions: int) -> None:
        total = max(source.train_characters // 10**6, millions)
        progress("encoding the training text, million characters", millions, total)

    def documents() -> Iterator[splits.Document]:
        yield from encoder.encode(splits.without_repeats(source.train(), seen), threads)
        yield from left

    for hashes in runs(splits.write_documents(documents(), train, progress=report), threads):
        for overlap in overlaps.values():
            overlap.look_at(hashes)

    tokens: Tokens = np.load(train / "tokens.npy", mmap_mode="r")
    progress("training the n-gram reference", 0, 1)
    model = reference.train(tokens, encoder.vocabulary, encoder.bos)
    progress("training the n-gram reference", 1, 1)
    np.save(train / "token_bytes.npy", encoder.token_bytes(p.byte_counts))
    baselines: dict[str, float] = {}
    for split in ("search", "test"):
        baselines |= _write_hidden(folder, split, p, hidden[split], encoder, model, progress)
    facts: dict[str, Value] = {
        "corpus": digest(identity),
        "tokenizer": encoder.hash,
        "train_documents": len(np.load(train / "starts.npy", mmap_mode="r")) - 1,
        "duplicates_dropped": source.duplicates,
        **{f"overlap_{split}": round(overlaps[split].share, 6) for split in ("search", "test")},
    }
    progress("checksums", 0, 1)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = Manifest(
        task="autoresearch",
        profile=profile,
        generator=GENERATOR,
        parameters={**p.model_dump(), **facts},
        shape={"length": p.length, "vocabulary": encoder.vocabulary, "bos": encoder.bos},
        rows={"train": len(tokens), "search": p.rows, "test": p.rows},
        files={path.relative_to(folder).as_posix(): checksum(path) for path in paths},
        baselines=baselines,
    )
    write_manifest(folder, manifest)


def _draw(
    profile: str,
    p: AutoresearchParameters,
    source: sources.Corpus,
    encoder: Tokenizer,
    seen: set[bytes],
    threads: int,
    progress: Progress,
) -> tuple[dict[str, HiddenSplit], list[splits.Document], Iterator[splits.Document]]:
    """Return the hidden splits, the validation, and a single pool's documents left for training."""
    drawers: dict[int, splits.DocumentReader] = {}
    for texts in source.hidden.values():
        fresh = encoder.encode(splits.without_repeats(texts, seen), threads)
        drawers.setdefault(id(texts), splits.DocumentReader(fresh))
    hidden: dict[str, HiddenSplit] = {}
    unused: list[splits.Document] = []
    wanted: sources.Hidden = "test"
    drawer = drawers[id(source.hidden[wanted])]
    try:
        for done, wanted in enumerate(HIDDEN):
            progress("drawing the hidden splits", done, 3)
            drawer = drawers[id(source.hidden[wanted])]
            audit = splits.draw_documents(drawer, p.audit_tokens)
            packed = splits.draw_rows(drawer, p.rows, p.capacity, p.seed)
            hidden[wanted] = HiddenSplit(packed, audit)
            unused += packed.unused
        wanted = "val"
        progress("drawing the hidden splits", 2, 3)
        drawer = drawers[id(source.hidden[wanted])]
        validation = splits.draw_documents(drawer, p.rows * p.capacity)
        progress("drawing the hidden splits", 3, 3)
    except splits.TooSmall as error:
        least = 2 * p.audit_tokens + 3 * p.rows * p.capacity
        whole = int(drawer.tokens / sources.HIDDEN_SHARE) if source.one_pool else drawer.tokens
        raise ConfigError(
            f"The text of {p.source} is too small for the profile {profile}.",
            cause=f"the split {wanted} needs {error.what}. The text has about {whole:,} tokens, "
            f"of which {drawer.tokens:,} may be hidden; the hidden splits and the validation need "
            f"at least {least:,}, and more where documents are cropped to rows",
            remedy="give more text, or more and shorter documents, or choose a smaller profile",
        ) from error
    left = iter([*unused, *drawer.rest()]) if source.one_pool else iter(())
    return hidden, validation, left


def _write_hidden(
    folder: Path,
    split: str,
    p: AutoresearchParameters,
    hidden: HiddenSplit,
    encoder: Tokenizer,
    model: reference.NgramReference,
    progress: Progress,
) -> dict[str, float]:
    """Write one hidden split; return the baselines' bits-per-byte on its rows."""

    def report(done: int, total: int) -> None:
        progress(f"n-gram reference on {split}, tokens", done, total)

    here = folder / split
    here.mkdir(mode=0o700)
    rows = hidden.packed.rows
    token_bytes = encoder.token_bytes(p.byte_counts)
    by_order = model.log_probabilities(rows.reshape(-1), report).reshape(-1, *rows.shape)[:, :, 1:]
    audit, starts = splits.concatenated(hidden.audit)
    np.save(here / "rows.npy", rows)
    np.save(here / "rows_reference.npy", by_order[-1])
    np.save(here / "audit_tokens.npy", audit)
    np.save(here / "audit_starts.npy", starts)
    np.save(here / "audit_reference.npy", model.log_probabilities(audit, report))
    np.save(here / "token_bytes.npy", token_bytes)
    return {
        f"{name}_{split}": round(reference.bits_per_byte(log_p, rows[:, 1:], token_bytes), 6)
        for name, log_p in (("unigram", by_order[0]), ("ngram", by_order[-1]))
    }
