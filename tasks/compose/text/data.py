"""Text as language modelling: the bundled corpus, or a folder of texts, as byte-pair tokens.

Pages go to three places. In the order of a hash of their content the first 40 % of the characters
may be hidden, and the rest are for training. With a hidden key, a hash keyed by it decides which
of the hidden ones are for test and which for search; no page is in two splits. The tokenizer, that
of Autoresearch, learns from the training pages. Pages are cut into documents of at most
``max_document`` characters, and these are packed into rows as in Autoresearch: each row begins with
BOS and a document, and the last document is cropped. All tokens but the first are asked.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from harness.base.errors import ConfigError
from harness.base.strict import Strict
from tasks.arrays import Arrays, prepare_arrays, source_state
from tasks.autoresearch import sources, splits, tokenizer
from tasks.compose.language import BUNDLED, Source, TokenIds, folder_given, language_arrays
from tasks.definition import Progress, Value
from tasks.hidden import hidden_key
from tasks.prepared import check
from tasks.shared import SPLITS

TASK, PART = "compose/text", "text"
GENERATOR = "compose-text-1"
"""Raise the number whenever the same parameters and text would give other rows."""

Pages = list[str]


class CorpusParameters(Strict):
    """What a profile's ``data`` table must hold.

    ``source`` is ``bundled`` or a folder; of it ``max_characters`` are read at most (0: all).
    ``length`` is in tokens; ``train``, ``search`` and ``test`` are rows.
    """

    source: Source
    seed: int = Field(ge=0)
    vocabulary: int = Field(ge=tokenizer.BYTES + len(tokenizer.SPECIALS), le=1 << 15)
    max_characters: int = Field(ge=0)
    max_document: int = Field(ge=1)
    length: int = Field(ge=8, le=16_384)
    train: int = Field(ge=1)
    search: int = Field(ge=2)
    test: int = Field(ge=2)


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data``, the source or the hidden key is wrong, the source is too small,
    or ``root`` cannot be written.
    """
    p = check(CorpusParameters, TASK, profile, data)
    if p.source != BUNDLED:
        folder_given(TASK, p.source, "with files of text: .txt, .md, .jsonl or .parquet")

    def read() -> Pages:
        return sources.pool(p.source, p.max_characters, 0, progress)[0]

    identity = sources.identity(p.source, 0)
    return prepare_text(TASK, PART, GENERATOR, profile, p, identity, read, root, progress)


def prepare_text(
    task: str,
    part: str,
    generator: str,
    profile: str,
    p: CorpusParameters,
    identity: str,
    read: Callable[[], Pages],
    root: Path,
    progress: Progress,
) -> Path:
    """Return the data folder of the pages that ``read`` returns, in the order of their hashes.

    ``identity`` changes when the source's text may have changed. Raises what ``prepare`` does.
    """
    key = hidden_key(root)

    def make() -> Arrays:
        need_tokenizer(task)
        return _arrays(
            task, part, profile, p, read(), key.seed(task, p.seed) if key else None, progress
        )

    state = source_state(generator, p, identity, key)
    return prepare_arrays(
        task, profile, generator, p.model_dump(), make, root, progress, key=key, state=state
    )


def need_tokenizer(task: str) -> None:
    """Raise ConfigError if the packages of the tokenizer are not installed."""
    try:
        import rustbpe  # type: ignore[import-untyped]  # noqa: F401
        import tiktoken  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"The data of {task} are made with rustbpe and tiktoken, which are not installed.",
            cause=str(error),
            remedy="pip install 'aira-harness[autoresearch]'",
        ) from error


def split_pages(pages: Sequence[str], hidden_seed: int | None = None) -> dict[str, Pages]:
    """Return the pages of each split; ``pages`` are in the order of their hashes.

    With ``hidden_seed`` it decides which of the hidden pages are for test, and which for search.
    """
    at = _prefix(pages, sources.HIDDEN_SHARE)
    hidden = list(pages[:at])
    if hidden_seed is not None:
        key = hidden_seed.to_bytes(16)
        hidden.sort(key=lambda page: hashlib.blake2b(page.encode(), key=key).digest())
    half = _prefix(hidden, 0.5)
    return {"train": list(pages[at:]), "search": hidden[half:], "test": hidden[:half]}


def _prefix(pages: Sequence[str], share: float) -> int:
    """Return how many of the first pages hold at most that share of all characters."""
    sizes = np.cumsum([len(page) for page in pages])
    return int((sizes <= share * sizes[-1]).sum()) if len(pages) else 0


def _arrays(
    task: str,
    part: str,
    profile: str,
    p: CorpusParameters,
    pages: Pages,
    hidden_seed: int | None,
    progress: Progress,
) -> Arrays:
    by_split = split_pages(pages, hidden_seed)
    progress("training the tokenizer", 0, 1)
    encoder = tokenizer.train(by_split["train"], p.vocabulary)
    progress("training the tokenizer", 1, 1)
    rows: dict[str, TokenIds] = {}
    counts = (p.train, p.search, p.test)
    for done, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        progress("packing documents into rows, splits", done, len(SPLITS))
        try:
            rows[split] = _rows(by_split[split], encoder, p, count)
        except splits.TooSmall as error:
            raise ConfigError(
                f"The text of {p.source} is too small for {task}, profile {profile}.",
                cause=f"{split} needs {error.what}, out of {len(by_split[split]):,} pages",
                remedy="give more text, or choose a smaller profile",
            ) from error
    progress("packing documents into rows, splits", len(SPLITS), len(SPLITS))
    facts: dict[str, Value] = {
        "tokenizer": encoder.hash,
        "pages": len(pages),
        "bytes_a_token": round(float(encoder.token_bytes("exact")[rows["test"][:, 1:]].mean()), 6),
    }
    return language_arrays(part, rows, encoder.vocabulary, encoder.bos, progress, facts=facts)


def _rows(
    pages: Iterable[str], encoder: tokenizer.Tokenizer, p: CorpusParameters, count: int
) -> TokenIds:
    """Return rows of ids (count, length + 1) that begin with BOS. Raises TooSmall."""
    documents = (document for page in pages for document in sources.cut(page, p.max_document))
    encoded = encoder.encode(documents, len(os.sched_getaffinity(0)))
    return splits.draw_rows(splits.DocumentReader(encoded), count, p.length + 1, p.seed).rows
