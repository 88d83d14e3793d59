"""Made-up reviews for the profiles that must run without any download.

A review is neutral words, and among them words of praise or blame; "not" before one turns it
round. The label says which there is more of: it follows from the words alone. No real language:
a score on it says that a model reads words and their order, and nothing about IMDb.
"""

from collections.abc import Iterable

from tasks.lra.stream import Stream

PRAISE = ("good", "great", "lovely", "superb", "moving", "funny", "clever", "brilliant")
BLAME = ("bad", "awful", "boring", "stupid", "weak", "dull", "terrible", "poor")
NEUTRAL = (
    "the", "a", "of", "and", "to", "in", "is", "it", "this", "that", "with", "as", "for", "film",
    "movie", "story", "scene", "actor", "plot", "cast", "music", "camera", "director", "part",
    "ending", "first", "second", "time", "year", "people", "we", "they", "there", "then", "when",
    "where", "about", "from", "on", "at",
)  # fmt: skip
STRONG, NEGATED = 0.3, 0.2
"""Share of the words that praise or blame, and of these the share that "not" turns round."""


def reviews(
    seed: int, count: int, length: int, *, without: Iterable[bytes] = ()
) -> list[tuple[bytes, int]]:
    """Return ``count`` different reviews of at most ``length`` bytes, as (text, label).

    As many praise as blame, give or take one. None has a text of ``without``.
    """
    stream = Stream(seed)
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


def _review(stream: Stream, length: int) -> tuple[bytes, int]:
    """Return one review, and how many words more praise than blame."""
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
