"""A toy language and its judge: wire and audits are real, the candidate runs in a thread, no torch.

The language is a Markov chain of order 2 over 63 words in documents of about 40 words. Its true
probabilities are known, so a test knows what an honest model scores and what a cheat gains.
"""

import contextlib
import threading
import time
from contextlib import closing
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from scorers.candidate.candidate import Link
from scorers.judge import Times
from scorers.language import AuditSizes, Language
from scorers.splice import TokenStream
from scorers.wire import Listener, LogitsBuffer
from tasks.packing import pack

VOCABULARY, BOS, LENGTH = 64, 63, 64
PATIENCE_S = 120
SIZES = AuditSizes(audit_rows=192, gap=8, twins=48, repeats=48)


class Language2:
    """The Markov chain. probabilities: float64 (64, 64, 64), of a token given the two before it."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        sparse = rng.gamma(0.08, size=(VOCABULARY,) * 3) + 1e-4
        sparse[:, :, BOS] = sparse.sum(axis=2) / 40
        self.probabilities = sparse / sparse.sum(axis=2, keepdims=True)
        self._sums = self.probabilities.cumsum(axis=2)

    def documents(self, tokens: int, rng: np.random.Generator) -> list[list[int]]:
        done, total = [], 0
        while total < tokens:
            text = [BOS]
            before = BOS
            while len(text) < 400:
                word = int(np.searchsorted(self._sums[before, text[-1]], rng.random()))
                if word >= BOS:
                    break
                before = text[-1]
                text.append(word)
            done.append(text)
            total += len(text)
        return done

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Return the true log probabilities, float32 (rows, positions, 64)."""
        before = np.concatenate([np.full((len(tokens), 1), BOS), tokens[:, :-1]], axis=1)
        before = np.where(tokens == BOS, BOS, before)
        return np.log(self.probabilities[before, tokens]).astype(np.float32)


def write_split(folder: Path, language: Language2, rows: int, audit: int, seed: int) -> Path:
    """Write a split in the format of the Autoresearch task."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    documents = language.documents(2 * rows * LENGTH, rng)
    packed = []
    for row in pack((len(d) for d in documents), LENGTH + 1, buffer_size=200):
        packed.append([t for i, take in row for t in documents[i][:take]])
        if len(packed) == rows:
            break
    scored = np.array(packed, np.uint16)
    stream = language.documents(audit, rng)
    flat = np.array([t for d in stream for t in d], np.uint16)
    nats = -at(language.logits(scored[:, :-1]), scored[:, 1:])
    table = np.zeros((4, len(flat)), np.float32)
    table[:, 1:] = at(language.logits(flat[None, :-1].astype(np.int64)), flat[None, 1:])[0]
    np.save(folder / "rows.npy", scored)
    np.save(folder / "rows_reference.npy", -nats.astype(np.float32))
    np.save(folder / "audit_tokens.npy", flat)
    np.save(folder / "audit_starts.npy", np.cumsum([0, *map(len, stream)]).astype(np.int64))
    np.save(folder / "audit_reference.npy", table)
    sizes = np.full(VOCABULARY, 4, np.int32)
    sizes[BOS] = 0
    np.save(folder / "token_bytes.npy", sizes)
    return folder


def read_stream(folder: Path) -> TokenStream:
    """Return the documents of a split from which spliced rows are made."""
    load = {n: np.load(folder / f"audit_{n}.npy") for n in ("tokens", "starts", "reference")}
    return TokenStream(load["tokens"], load["starts"], load["reference"], BOS)


def at(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the logit of the given token at each position."""
    return np.take_along_axis(logits, tokens.astype(np.int64)[:, :, None], axis=2)[:, :, 0]


def make_judge(
    folder: Path, sizes: AuditSizes = SIZES, seed: str = "a1", strict: Path | None = None
):
    """Return the real judge of a split."""
    shape = {"length": LENGTH, "vocabulary": VOCABULARY, "bos": BOS}
    return Language(folder, shape, sizes, max_batch=64, audit_seed=seed, tell=True, strict=strict)


def examine(folder: Path, predict, *, batch: int = 16, sizes: AuditSizes = SIZES, seed: str = "a1"):
    """Have the real judge examine ``predict``, which runs in a thread; return as ``serve`` does."""
    return serve(deepcopy(_made(folder, sizes, seed)), predict, {"batch_size": batch})


_made = cache(make_judge)  # drawing the rows takes longer than serving them


def serve(
    judge,
    predict,
    claim: dict,
    lend: bytes = b"",
    times: Times | None = None,
    observe=lambda *_: None,
):
    """Return an examiner's verdict on ``predict``, and a list with the BYE message, if one came."""
    times = times or Times(time.monotonic(), PATIENCE_S, PATIENCE_S)
    told: list[dict] = []
    with TemporaryDirectory() as place, closing(LogitsBuffer(judge.buffer_bytes)) as buffer:
        path = Path(place) / "judge.sock"

        def candidate() -> None:
            link = Link.connect(str(path))
            # A judge that hangs up has already decided.
            with closing(link._sock), contextlib.suppress(ConnectionError):
                if lend:
                    link.lend(lend)
                told.append(link.serve(predict, claim=claim))

        listener = Listener(path)
        thread = threading.Thread(target=candidate, daemon=True)
        thread.start()
        with closing(judge), closing(listener):
            wire = listener.accept(thread.is_alive, threading.Event(), times.spawned + PATIENCE_S)
            with closing(wire):
                wire.greet(buffer)
                verdict = judge.examine(wire, buffer, times=times, observe=observe)
                thread.join(PATIENCE_S)
    assert not thread.is_alive()
    return verdict, told
