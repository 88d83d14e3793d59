"""The names that a submission imports from ``prepare``, as the public Autoresearch task has them.

``MAX_SEQ_LEN``, ``TIME_BUDGET``, ``EVAL_TOKENS``, ``Tokenizer``, ``make_dataloader``,
``get_token_bytes``, ``evaluate_bpb``. The interface is that of karpathy/autoresearch at 228791f, so
that its train.py runs unmodified; the code is ours. One thing differs: ``evaluate_bpb`` computes
nothing. It serves the model's logits to a judge in another process, which alone knows the rows.

It runs inside the sandbox, in one process with the submission, so nothing rests on its honesty.
torch is imported by the functions that need it: a submission may set torch's environment first.
"""

import json
import operator
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import device_buffer  # type: ignore[import-not-found]  # mounted beside this file
import frozen  # type: ignore[import-not-found]
import loader  # type: ignore[import-not-found]
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

MAX_SEQ_LEN = 2048
TIME_BUDGET: float = 300.0
EVAL_TOKENS = 40 * 524_288
"""The public sizes; ``connect`` puts the profile's in their place before a submission runs."""


Answer = NDArray[np.float32] | tuple[int, int, int]
"""Logits on the host, or the shape of what lies in the device buffer."""


class Link(Protocol):
    """What this file uses of candidate.py's Link."""

    def serve(
        self,
        predict: Callable[[NDArray[np.int32]], Answer],
        *,
        claim: dict[str, Any],
    ) -> dict[str, Any]: ...

    def lend(self, data: bytes) -> int: ...


class Refused(Exception):
    """The submission breaks the contract in a way that can be named. ``kind``: scorers.score."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Session:
    """What ``connect`` was told, and how serving went."""

    config: dict[str, Any]
    link: Link
    began: float
    score: float | None = None
    """The judge's last word: bits-per-byte, or NaN where the judge does not tell."""
    failure: BaseException | None = None
    """What ended the serving. Kept, for the submission may catch it."""


_session = _Session()


def connect(config: dict[str, Any], link: Link) -> None:
    """Set the profile's sizes and the way to the judge; the runner calls it, once.

    config.json: see runner.py.
    """
    global MAX_SEQ_LEN, TIME_BUDGET
    _session.config, _session.link, _session.began = config, link, time.monotonic()
    MAX_SEQ_LEN = int(config["shape"]["length"])
    TIME_BUDGET = config["settings"]["time_budget"]


def served() -> bool:
    """Return whether the judge got all its answers."""
    return _session.score is not None


def failure() -> BaseException | None:
    """Return what ended the serving early, if anything did."""
    return _session.failure


def _train_folder() -> Path:
    return Path(_session.config["paths"]["train"])


class Tokenizer:
    """Byte-pair encoding as trained by the task; ids below the specials are byte strings."""

    def __init__(self, pattern: str, merges: list[bytes], specials: list[str], bos: int) -> None:
        self._pattern, self._merges, self._specials, self._bos = pattern, merges, specials, bos

    @classmethod
    def from_directory(cls, tokenizer_dir: str | Path | None = None) -> "Tokenizer":
        """Load ``tokenizer.json``, by default the task's own."""
        folder = Path(tokenizer_dir) if tokenizer_dir is not None else _train_folder()
        told = json.loads((folder / "tokenizer.json").read_text())
        merges = [bytes.fromhex(text) for text in told["merges"]]
        return cls(told["pattern"], merges, told["specials"], _session.config["shape"]["bos"])

    def get_vocab_size(self) -> int:
        """Return the number of ids, specials included."""
        return len(self._merges) + len(self._specials)

    def get_bos_token_id(self) -> int:
        """Return the id that every document begins with."""
        return self._bos

    @cached_property
    def enc(self) -> Any:  # noqa: ANN401  # tiktoken is not always there
        """The same tokenizer as a tiktoken Encoding."""
        import tiktoken

        return tiktoken.Encoding(
            name="autoresearch",
            pat_str=self._pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self._merges)},
            special_tokens={n: len(self._merges) + i for i, n in enumerate(self._specials)},
        )

    def encode(
        self, text: str | list[str], prepend: int | str | None = None, num_threads: int = 8
    ) -> list[int] | list[list[int]]:
        """Return the ids of a text, or of each of a list; ``prepend`` is an id or a special's name.

        Special names inside a text are ordinary text.
        """
        first: list[int] = []
        if prepend is not None:
            one = self.enc.encode_single_token(prepend) if isinstance(prepend, str) else prepend
            first = [one]
        if isinstance(text, str):
            return first + list(self.enc.encode_ordinary(text))
        if isinstance(text, list):
            rows = self.enc.encode_ordinary_batch(text, num_threads=num_threads)
            return [first + row for row in rows]
        raise TypeError(f"encode takes a str or a list of str, not {type(text).__name__}")

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids; bytes that are no UTF-8 become U+FFFD."""
        special = [name.encode() for name in self._specials]
        every = self._merges + special
        return b"".join(every[int(i)] for i in ids).decode(errors="replace")


def get_token_bytes(device: str = "cpu") -> "torch.Tensor":
    """Return the bytes that each id counts for as a target, int32 (vocabulary,); specials 0."""
    import torch

    counts = np.load(_train_folder() / "token_bytes.npy", allow_pickle=False)
    return torch.from_numpy(counts).to(device)


def make_dataloader(
    tokenizer: object, B: int, T: int, split: str, buffer_size: int = 1000
) -> Iterator[tuple["torch.Tensor", "torch.Tensor", int]]:
    """Yield (inputs, targets, epoch) for ever: int64 (B, T) on the device, targets one token on.

    ``split``: "train", or "val", the submission's own validation documents. Rows begin with
    BOS and hold whole documents where they fit; the shortest is cropped where none does; there
    is no padding and no shuffling. Both tensors are views of one buffer that the next batch
    overwrites: clone what has to last. ``epoch`` counts from 1. Batches are packed ahead by a
    thread, which ends when the iterator is closed.
    """
    if split not in ("train", "val"):
        raise ValueError(f"make_dataloader: split is 'train' or 'val', not {split!r}")
    rows, length = operator.index(B), operator.index(T)
    if min(rows, length, buffer_size) < 1:
        raise ValueError(f"make_dataloader: B={B}, T={T}, buffer_size={buffer_size}: below 1")
    documents = loader.Documents.load(_train_folder(), split)
    device = _session.config["device"]
    batches: Iterator[Any] = loader.batches(documents, rows, length, buffer_size, device)
    return batches


def evaluate_bpb(model: Callable[..., Any], tokenizer: object, batch_size: int) -> float:
    """Serve ``model(x)`` to the judge, and return the bits-per-byte that it measured.

    x: int64 (batch_size, MAX_SEQ_LEN) on the device, always of this shape; the answer: logits,
    floating (batch_size, MAX_SEQ_LEN, vocabulary). Where the judge keeps the score to itself
    (the final test), the result is NaN. A second call returns the first one's result and serves
    nothing: the first call hands the submission in.

    Raises Refused.
    """
    if _session.failure is not None:
        raise _session.failure
    if _session.score is not None:
        return _session.score
    predict = Predict(model, _checked_batch(batch_size), _session.config)
    claim = {
        "batch_size": predict.rows,
        "seconds_before_serving": round(time.monotonic() - _session.began, 3),
        **predict.claim,
    }
    if (parameters := getattr(model, "parameters", None)) is not None:
        claim["parameters"] = sum(p.numel() for p in parameters())
    if _session.config.get("strict"):
        claim["frozen"] = _frozen(model, predict.rows)
    began = time.monotonic()
    try:
        score = _session.link.serve(predict, claim=claim).get("score")
    except BaseException as error:
        _session.failure = error
        raise
    _session.score = float("nan") if score is None else float(score)
    print(f"judged_seconds:   {time.monotonic() - began:.2f}", flush=True)
    return _session.score


def _frozen(model: Callable[..., Any], rows: int) -> dict[str, Any]:
    """Lend the judge the model as a file; return its bytes, or why there is none."""
    try:
        data = frozen.freeze(model, (rows, MAX_SEQ_LEN), _session.config["device"])
        return {"bytes": _session.link.lend(data)}
    except (frozen.NotFrozen, ValueError) as error:
        return {"error": str(error)}


def _checked_batch(batch_size: object) -> int:
    most = int(_session.config["settings"]["max_batch"])
    try:
        rows = operator.index(batch_size)  # type: ignore[arg-type]
    except TypeError:
        rows = 0
    if not 1 <= rows <= most:
        wanted = f"a whole number from 1 to {most}"
        text = f"evaluate_bpb: batch_size is {batch_size!r}; it must be {wanted}."
        raise Refused("interface_error", text)
    return rows


class Predict:
    """The served function: one batch of token ids in, its logits out."""

    def __init__(self, model: Callable[..., Any], rows: int, config: dict[str, Any]) -> None:
        self._model, self.rows = model, rows
        self._device = config["device"]
        self._shape = (rows, config["shape"]["length"], config["shape"]["vocabulary"])
        self._sink = device_buffer.sink(self._device, self._shape)
        self.claim: dict[str, Any] = self._sink.claim

    def tensor(self, tokens: NDArray[np.int32]) -> "torch.Tensor":
        """Return the model's logits for int32 (B, T), as they are: on the device, in its dtype.

        Autocast stays as the submission set it. Raises Refused for a wrong shape or type.
        """
        import torch

        with torch.no_grad():
            x = torch.from_numpy(tokens).to(self._device).long()
            logits = self._model(x)
        wanted = f"floating logits of shape {self._shape}"
        if not isinstance(logits, torch.Tensor):
            text = f"model(x) returned {type(logits).__name__}, not {wanted}."
            raise Refused("wrong_shape", text)
        if tuple(logits.shape) != self._shape or not logits.is_floating_point():
            found = f"{logits.dtype} of shape {tuple(logits.shape)}"
            raise Refused("wrong_shape", f"model(x) returned {found}, not {wanted}.")
        return logits

    def __call__(self, tokens: NDArray[np.int32]) -> Answer:
        """Hand the logits of a batch over: see ``device_buffer``."""
        answer: Answer = self._sink(self.tensor(tokens))
        return answer
