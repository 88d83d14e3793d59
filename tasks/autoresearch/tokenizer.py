"""The byte-pair tokenizer: trained by rustbpe, run by tiktoken, kept as JSON.

It follows the public Autoresearch task (karpathy/autoresearch, commit 228791f): text is split
as GPT-4's tokenizer splits it, but digits in runs of at most two; ``vocabulary`` − 4 tokens
come from merges, the last four ids are specials, the first special is BOS. The public task
keeps a pickle, and loading a pickle runs code; the JSON here is data only.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from harness.base.digests import digest
from harness.base.errors import ConfigError

if TYPE_CHECKING:
    import tiktoken

ByteCounts = Literal["exact", "public"]
Tokens = NDArray[np.uint16]

SPLIT_PATTERN = "|".join(
    (
        r"'(?i:[sdmt]|ll|ve|re)",  # English contractions
        r"[^\r\n\p{L}\p{N}]?+\p{L}+",  # a word, with one character that leads it
        r"\p{N}{1,2}",  # digits
        r" ?[^\s\p{L}\p{N}]++[\r\n]*",  # punctuation, with the line ends behind it
        r"\s*[\r\n]",  # blank lines
        r"\s+(?!\S)",  # spaces but the last, which leads a word
        r"\s+",
    )
)
SPECIALS = tuple(f"<|reserved_{i}|>" for i in range(4))
BOS = SPECIALS[0]
BYTES = 256

MAX_DOCUMENT_CHARACTERS = 10_000
MAX_CHARACTERS = 1_000_000_000
"""Limits of the tokenizer's training text: the beginning of each document, and the total."""

ENCODE_AT_ONCE = 256
"""Documents handed to the threads together."""


@dataclass(frozen=True)
class Tokenizer:
    """A trained tokenizer: ``merges`` are the tokens' bytes in the order of their ids."""

    pattern: str
    merges: tuple[bytes, ...]
    specials: tuple[str, ...] = SPECIALS

    @property
    def vocabulary(self) -> int:
        """Number of token ids, specials included."""
        return len(self.merges) + len(self.specials)

    @property
    def bos(self) -> int:
        """Id of the token that begins every document."""
        return len(self.merges) + self.specials.index(BOS)

    @property
    def hash(self) -> str:
        """Hash of all that decides how text is encoded."""
        return digest(self.to_json())

    def to_json(self) -> str:
        """Return the tokenizer as one JSON object, the same for the same tokenizer."""
        value = {
            "format": 1,
            "pattern": self.pattern,
            "merges": [token.hex() for token in self.merges],
            "specials": list(self.specials),
        }
        return json.dumps(value) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the tokenizer that ``to_json`` wrote. Raises ConfigError if it is not one."""
        try:
            value = json.loads(text)
            if value["format"] != 1:
                raise ConfigError(f"A tokenizer of format {value['format']!r} cannot be read.")
            merges = tuple(bytes.fromhex(token) for token in value["merges"])
            return cls(str(value["pattern"]), merges, tuple(map(str, value["specials"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError("This is no tokenizer.json.", cause=repr(error)) from error

    def encode(self, texts: Iterable[str], threads: int) -> Iterator[tuple[str, Tokens]]:
        """Yield every text with its tokens, BOS first, in order; texts are drawn lazily.

        Text that looks like a special token is encoded as ordinary text.
        """
        source = iter(texts)
        with ThreadPoolExecutor(threads) as pool:
            while batch := list(islice(source, ENCODE_AT_ONCE)):
                yield from zip(batch, pool.map(self._encode, batch), strict=True)

    def token_bytes(self, kind: ByteCounts) -> NDArray[np.int32]:
        """Return how many bytes each token counts for as a target, int32 (vocabulary,).

        ``exact``: the bytes that the token stands for. ``public``: as the public task counts,
        the UTF-8 length of the token decoded alone, in which every piece of a character that is
        cut in two becomes U+FFFD, 3 bytes. Specials count 0.
        """
        counts = np.zeros(self.vocabulary, np.int32)
        for token, raw in enumerate(self.merges):
            text = raw if kind == "exact" else raw.decode("utf-8", "replace").encode()
            counts[token] = len(text)
        return counts

    @cached_property
    def encoding(self) -> "tiktoken.Encoding":
        """The same tokenizer as a tiktoken Encoding."""
        import tiktoken

        return tiktoken.Encoding(
            "autoresearch",
            pat_str=self.pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self.merges)},
            special_tokens={name: len(self.merges) + i for i, name in enumerate(self.specials)},
        )

    def _encode(self, text: str) -> Tokens:
        ids = self.encoding.encode_to_numpy(text, disallowed_special=())
        tokens = np.empty(len(ids) + 1, np.uint16)
        tokens[0], tokens[1:] = self.bos, ids
        return tokens


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a tokenizer of ``vocabulary`` ids on ``texts``, and return it.

    Raises ConfigError if they hold too few different words for that many merges.
    """
    import rustbpe  # type: ignore[import-untyped]

    wanted = vocabulary - len(SPECIALS)
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(_beginnings(texts), wanted, pattern=SPLIT_PATTERN)
    ranks = {int(rank): bytes(token) for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) < wanted:
        raise ConfigError(
            f"The training text gives only {len(ranks):,} of the {wanted:,} tokens that a "
            f"vocabulary of {vocabulary:,} needs.",
            cause="there is too little text, or it repeats itself",
            remedy="give more text, or choose a profile with a smaller vocabulary",
        )
    return Tokenizer(SPLIT_PATTERN, tuple(ranks[rank] for rank in range(wanted)))


def _beginnings(texts: Iterable[str]) -> Iterator[str]:
    total = 0
    for text in texts:
        beginning = text[:MAX_DOCUMENT_CHARACTERS]
        yield beginning
        total += len(beginning)
        if total >= MAX_CHARACTERS:
            return
