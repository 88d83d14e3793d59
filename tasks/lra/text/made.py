"""Generates reviews for the profiles that must run without a download.

A review mixes neutral words with words of praise or blame; "not" before such a word reverses it.
The label says which there is more of, so it follows from the words alone. This is no real language:
a score shows that a model reads words and their order, and nothing about IMDb.
"""

from collections.abc import Iterable

from tasks.stream import RandomStream

PRAISE = ("good", "great", "lovely", "superb", "moving", "funny", "clever", "brilliant")
BLAME = ("bad", "awful", "boring", "stupid", "weak", "dull", "terrible", "poor")
NEUTRAL = (
    "the", "a", "of", "and", "to", "in", "is", "it", "this", "that", "with", "as", "for", "film",
    "movie", "story", "scene", "actor", "plot", "cast", "music", "camera", "director", "part",
    "ending", "first", "second", "time", "year", "people", "we", "they", "there", "then", "when",
    "where", "about", "from", "on", "at",
)  # fmt: skip
STRONG, NEGATED = 0.3, 0.2
"""Share of the words that praise or blame, and of these the share that "not" reverses."""


def reviews(
    seed: int, count: int, length: int, *, without: Iterable[bytes] = ()
) -> list[tuple[bytes, int]]:
    """Return ``count`` different reviews of at most ``length`` bytes, as (text, label).

    The numbers of positive and negative reviews differ by at most one. No text is in ``without``.
    """
    stream = RandomStream(seed)
    wanted = {1: (count + 1) // 2, 0: count // 2}
    found: list[tuple[bytes, int]] = []
    seen = set(without)
    while sum(wanted.values()):
        text, balance = _review(stream, length)
        label = int(balance > 0)
        if balance == 0 or wanted[label] == 0 or text in seen:
            continue
        seen.add(text)
        wanted[label] -= 1
        found.append((text, label))
    order = stream.order(count)
    return [found[int(i)] for i in order]


def _review(stream: RandomStream, length: int) -> tuple[bytes, int]:
    """Return one review, and its number of praising words minus that of blaming words."""
    limit = length // 3 + int(stream.below(length - length // 3, 1)[0])
    kind, turned, which = stream.uniform(3 * (limit // 2 + 1)).reshape(3, -1)
    words: list[str] = []
    size = balance = 0
    for k, t, w in zip(kind.tolist(), turned.tolist(), which.tolist(), strict=True):
        if k < STRONG:
            sign = 1 if k < STRONG / 2 else -1
            strong = PRAISE if sign > 0 else BLAME
            word = strong[int(w * len(strong))]
            if t < NEGATED:
                word, sign = f"not {word}", -sign
        else:
            sign, word = 0, NEUTRAL[int(w * len(NEUTRAL))]
        size += len(word) + 1
        if size > limit:
            break
        words.append(word)
        balance += sign
    return " ".join(words).encode(), balance
