"""The six token tasks of MAD, drawn with numpy (Poli et al., arXiv 2403.17844, section 3).

Definitions and sizes follow athms/mad-lab, commit 0f49a45 (``mad/data`` and ``configs/tasks``), in
its multi-query form. The rows are ours. This is what differs, each time to mend a defect:

- All draws come from the given stream. There, selective copying also draws from numpy's global
  generator, so its rows depend on whatever ran before.
- Every split has a stream of its own. There, one generator makes train, then test; and test comes
  from a fresh generator, with the same seed, if the file of train exists.
- Learning rate, weight decay and checkpoint are chosen there by the test rows. Here there is a
  third split to choose by.
- The only number there is a macro accuracy, averaged over batches. Baselines here are micro
  accuracies: the right share of all targets.
- Noisy recall protects one pair from noise so that each row has a key. There it may be the last
  pair, which is never noise, and a row of noise alone stops the program.
- Fuzzy recall asks at the end for a pair that the row has shown. There its place may lie beyond the
  part that is filled: about 2 % of rows ask for what they never showed.
- Fuzzy recall is padded on the left. There, training also asks for the padding; here it does not.
- The fixed table of memorization is drawn from our stream, so it has other entries.

A generator returns ``inputs`` (rows, width), uint8 or int16, and ``targets`` (rows, width), int16:
``targets[i, t]`` is what a model should answer at position t, or ``IGNORED``. Where a generator
takes ``training``, training targets are the next token at every position, as in the original;
else they are only what the row determines. Rows are independent draws: a row in two splits, or
twice in one, is possible, but at the original's sizes its chance is below 1e-25.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.kinds import IGNORED
from tasks.lra.rows import TokenRows, id_type
from tasks.stream import Ints, RandomStream

AskedTokens = NDArray[np.int16]
InputsAndTargets = tuple[TokenRows, AskedTokens]
Motif = tuple[int, ...]

TABLE_SEED = 12345
"""The seed of memorization's table: public, and the same in every split and data set."""


def in_context_recall(
    stream: RandomStream, rows: int, vocabulary: int, length: int, *, training: bool
) -> InputsAndTargets:
    """Return rows of (key, value) pairs, where a key that comes again has the same value.

    Keys are the lower half of the ids, values the upper half. A row is ``length``/2 pairs without
    the very last token, so ``length`` is even and the width is ``length`` - 1. Its last key has
    been shown before. Asked: the value of each key that has been shown before.
    """
    return noisy_recall(stream, rows, vocabulary, 0, 0.0, length, training=training)


def noisy_recall(
    stream: RandomStream,
    rows: int,
    vocabulary: int,
    noise_vocabulary: int,
    noise: float,
    length: int,
    *,
    training: bool,
) -> InputsAndTargets:
    """Return rows as of ``in_context_recall``, with some pairs replaced by two tokens of noise.

    ``noise``, in [0, 1), is the probability for each pair but the last, and but one other that is
    protected. Tokens of noise are the ``noise_vocabulary`` ids from ``vocabulary`` on.
    """
    key_count = vocabulary // 2
    pairs = length // 2 - 1  # and the last
    row = np.arange(rows)
    value_of = key_count + _below(stream, vocabulary - key_count, rows, key_count)
    noisy = stream.uniform(rows * pairs).reshape(rows, pairs) < noise
    noisy[row, stream.below(pairs, rows)] = False
    keys = _below(stream, key_count, rows, pairs)
    random_noise = vocabulary + _below(stream, noise_vocabulary, rows, pairs, 2)

    shown = np.zeros((rows, key_count), bool)
    again = np.ones((rows, pairs + 1), bool)
    for pair in range(pairs):
        again[:, pair] = shown[row, keys[:, pair]] & ~noisy[:, pair]
        shown[row, keys[:, pair]] |= ~noisy[:, pair]
    # All shown keys are equally likely: the highest of random numbers belongs to any of them.
    highest = np.where(shown, stream.uniform(shown.size).reshape(shown.shape), -1).argmax(axis=1)
    keys = np.column_stack((keys, highest))

    tokens = np.stack((keys, np.take_along_axis(value_of, keys, axis=1)), axis=2)
    tokens[:, :-1][noisy] = random_noise[noisy]
    asked = np.full_like(tokens, IGNORED)
    asked[again, 1] = tokens[again, 1]
    tokens, asked = tokens.reshape(rows, length), asked.reshape(rows, length)
    return _shifted(tokens, tokens if training else asked, vocabulary + noise_vocabulary)


def fuzzy_recall(
    stream: RandomStream, rows: int, vocabulary: int, length: int, motif: int, *, training: bool
) -> InputsAndTargets:
    """Return rows as of ``in_context_recall``, whose keys and values are motifs of several tokens.

    A motif is up to ``motif`` different tokens in a certain order. Sizes are uniform, but outside
    training all keys have ``motif`` tokens. The last id is padding, the lower half of the others
    makes keys, the upper half values. A row is padded on the left to ``length``, which must exceed
    6 * ``motif``. A probe is shown at a random place and asked for at the end; also asked are the
    values of other keys that come again, every token of them.
    """
    padding = vocabulary - 1
    key_count = padding // 2
    smallest_key = 1 if training else motif
    pairs = length // (smallest_key + 1) + 1  # enough for every row, and the probe before them
    key_sizes = smallest_key + _below(stream, motif - smallest_key + 1, rows, pairs)
    value_sizes = 1 + _below(stream, motif, rows, pairs)
    keys = _motifs(stream, key_count, motif, rows, pairs)
    values = key_count + _motifs(stream, padding - key_count, motif, rows, pairs)
    places = stream.uniform(rows)

    tokens = np.full((rows, length + 1), padding)
    asked = np.full((rows, length + 1), IGNORED)
    for row in range(rows):
        drawn = [
            (tuple(key[:key_size]), tuple(value[:value_size]))
            for key, key_size, value, value_size in zip(
                keys[row].tolist(),
                key_sizes[row].tolist(),
                values[row].tolist(),
                value_sizes[row].tolist(),
                strict=True,
            )
        ]
        shown, wanted = _fuzzy_row(drawn, float(places[row]), length, motif)
        tokens[row, -len(shown) :] = shown
        asked[row, -len(shown) :] = wanted
    if training:
        asked = np.where(tokens == padding, IGNORED, tokens)
    return _shifted(tokens, asked, vocabulary)


def _fuzzy_row(
    drawn: list[tuple[Motif, Motif]], place: float, length: int, motif: int
) -> tuple[list[int], list[int]]:
    """Return a row's tokens and what is asked at each, before padding and shift.

    ``drawn``: the probe, then more pairs than fit; ``place`` in [0, 1): where the probe stands.
    """
    probe, *others = drawn
    probe_size = len(probe[0]) + len(probe[1])
    room = length - 2 * probe_size - 2 * motif  # the last pair begins within it
    value_of = {probe[0]: probe[1]}
    row: list[tuple[Motif, Motif]] = []
    filled = 0
    for key, value in others:
        if filled >= room:
            break
        row.append((key, value_of.setdefault(key, value)))
        filled += len(key) + len(row[-1][1])
    row.insert(int(place * (len(row) + 1)), probe)

    tokens: list[int] = []
    asked: list[int] = []
    shown: set[Motif] = set()
    for key, value in (*row, probe):
        tokens += key + value
        asked += [IGNORED] * len(key)
        asked += value if key in shown else [IGNORED] * len(value)
        shown.add(key)
    return tokens, asked


def selective_copying(
    stream: RandomStream, rows: int, vocabulary: int, length: int, copies: int
) -> InputsAndTargets:
    """Return rows of ``copies`` tokens with blanks between them, to be repeated without blanks.

    The last id asks for the copy, the one before it is blank. ``length`` exceeds 2 * ``copies`` + 1
    by the number of blanks. A blank stands before a token, never after the last one. Asked at the
    last ``copies`` positions, which are blank: the tokens in their order.
    """
    copy, blank = vocabulary - 1, vocabulary - 2
    blanks = length - 2 * copies - 1
    content = _below(stream, blank, rows, copies)
    before = _below(stream, copies, rows, blanks) + copies * np.arange(rows)[:, None]
    counts = np.bincount(before.ravel(), minlength=rows * copies).reshape(rows, copies)

    tokens = np.full((rows, length), blank)
    np.put_along_axis(tokens, np.arange(copies) + counts.cumsum(axis=1), content, axis=1)
    tokens[:, -copies - 1] = copy
    asked = np.full((rows, length), IGNORED)
    asked[:, -copies:] = content
    return _typed(tokens, asked, vocabulary)


def compression(stream: RandomStream, rows: int, vocabulary: int, length: int) -> InputsAndTargets:
    """Return rows of random tokens that end with the last id, to be rebuilt from that position.

    Asked at each position: the input itself, also the last token, although it is always the same.
    """
    tokens = np.full((rows, length), vocabulary - 1)
    tokens[:, :-1] = _below(stream, vocabulary - 1, rows, length - 1)
    return _typed(tokens, tokens, vocabulary)


def memorization(stream: RandomStream, rows: int, vocabulary: int, length: int) -> InputsAndTargets:
    """Return rows of keys, each followed by the last id, at which the key's value is asked.

    No input shows a value. The values are those of ``memorized``, in every split: no pair is held
    out, only the order in which keys come. ``length`` is even.
    """
    keys = _below(stream, (vocabulary - 1) // 2, rows, length // 2)
    tokens = np.full((rows, length), vocabulary - 1)
    tokens[:, ::2] = keys
    asked = np.full((rows, length), IGNORED)
    asked[:, 1::2] = memorized(vocabulary)[keys]
    return _typed(tokens, asked, vocabulary)


def memorized(vocabulary: int) -> Ints:
    """Return memorization's fixed table: each key's value, (keys,), no value twice.

    Without the last id, the lower half of the ids are keys; their values are in the upper half.
    """
    key_count = (vocabulary - 1) // 2
    return key_count + RandomStream(TABLE_SEED).order(vocabulary - 1 - key_count)[:key_count]


def _below(stream: RandomStream, limit: int, *shape: int) -> Ints:
    return stream.below(limit, int(np.prod(shape))).reshape(shape)


def _motifs(stream: RandomStream, limit: int, size: int, *shape: int) -> Ints:
    """Return ``size`` different integers below ``limit`` in random order, (*shape, size)."""
    chosen: list[Ints] = []
    for taken in range(size):
        token = _below(stream, limit - taken, *shape)
        for earlier in np.sort(chosen, axis=0):  # count up past those that are taken
            token += token >= earlier
        chosen.append(token)
    return np.stack(chosen, axis=-1)


def _shifted(tokens: Ints, asked: Ints, vocabulary: int) -> InputsAndTargets:
    """Return inputs without the last token, and as targets what is asked at the next one."""
    return _typed(tokens[:, :-1], asked[:, 1:], vocabulary)


def _typed(tokens: Ints, asked: Ints, vocabulary: int) -> InputsAndTargets:
    return tokens.astype(id_type(vocabulary)), asked.astype(np.int16)
