"""Generates documents for the profiles that must run without a download: do two share a topic?

A topic is a handful of invented words. A document draws some of its words from its topic and the
rest from words of no topic; a pair that shares a topic is related (label 1). Each document is in
one split only, and every topic is in all splits. A score says nothing about citations.
"""

from dataclasses import dataclass

from tasks.stream import RandomStream

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
TOPICS, TOPIC_WORDS, PLAIN_WORDS = 6, 4, 60
SHARE = 0.4
"""Share of the words of a document that are from its topic."""


@dataclass(frozen=True)
class DocumentPair:
    """Two documents, by name and text, and whether they belong together."""

    label: int
    first: str
    second: str
    texts: tuple[bytes, bytes]


def pairs(
    seed: int, count: int, length: int, split: str, *, drawn_from: int | None = None
) -> list[DocumentPair]:
    """Return ``count`` pairs of documents of at most ``length`` bytes, half of them related.

    The topics depend only on ``seed``, the documents also on ``split``; ``drawn_from`` is another
    seed for the documents.
    """
    words = _words(RandomStream(seed), TOPICS * TOPIC_WORDS + PLAIN_WORDS)
    plain = words[TOPICS * TOPIC_WORDS :]
    stream = RandomStream(seed if drawn_from is None else drawn_from, *split.encode())
    labels = (stream.order(count) % 2).tolist()
    first = stream.below(TOPICS, count)
    second = (first + 1 + stream.below(TOPICS - 1, count)) % TOPICS
    found = []
    for number, label in enumerate(labels):
        topics = (int(first[number]), int(first[number] if label else second[number]))
        a, b = (
            _document(stream, words[t * TOPIC_WORDS : (t + 1) * TOPIC_WORDS], plain, length)
            for t in topics
        )
        found.append(DocumentPair(label, f"{split}-{number}-a", f"{split}-{number}-b", (a, b)))
    return found


def _words(stream: RandomStream, count: int) -> list[str]:
    """Return different words of two or three syllables."""
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = 2 + int(stream.below(2, 1)[0])
        consonants = stream.below(len(CONSONANTS), syllables)
        vowels = stream.below(len(VOWELS), syllables)
        word = "".join(CONSONANTS[c] + VOWELS[v] for c, v in zip(consonants, vowels, strict=True))
        found[word] = None
    return list(found)


def _document(stream: RandomStream, topic: list[str], plain: list[str], length: int) -> bytes:
    limit = length // 2 + int(stream.below(length - length // 2, 1)[0])
    kind, which = stream.uniform(2 * (limit // 4 + 1)).reshape(2, -1).tolist()
    words: list[str] = []
    size = 0
    for k, w in zip(kind, which, strict=True):
        choice = topic if k < SHARE else plain
        word = choice[int(w * len(choice))]
        size += len(word) + 1
        if size > limit:
            break
        words.append(word)
    return " ".join(words).encode()
