"""Tests the stories: what they say agrees, by a second reading, and probabilities are exact."""

import hashlib
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.base.errors import ConfigError
from tasks.compose.stories import data as stories
from tasks.compose.stories import grammar, words
from tasks.compose.stories.grammar import END, Lexicon, draw, options, uniform
from tasks.definition import Manifest, Value
from tasks.kinds import parts_fault
from tasks.shared import SPLITS
from tasks.stream import RandomStream

SMALL: dict[str, Value] = {
    "seed": 1, "names": 5, "places": 3, "looks": 2, "things": 4, "length": 60,
    "train": 20, "search": 30, "test": 25,
}  # fmt: skip
TINY = Lexicon.of(3, 2, 1, 3)
FEW = Lexicon.of(6, 4, 2, 6)
counts = st.tuples(st.integers(3, 142), st.integers(2, 90), st.integers(1, 40), st.integers(3, 226))


def prepare(root: Path, **changes: Value) -> tuple[Path, Manifest]:
    folder = stories.prepare("smoke", {**SMALL, **changes}, root, lambda *_: None)
    return folder, Manifest.model_validate_json((folder / "manifest.json").read_text())


def said(lexicon: Lexicon, row: NDArray[Any]) -> list[str]:
    return [lexicon.vocabulary[i] for i in row]


def test_no_word_is_twice_in_the_lists() -> None:
    everything = Lexicon.of(
        len(words.NAMES), len(words.PLACES), len(words.LOOKS), len(words.THINGS)
    ).vocabulary
    assert len(set(everything)) == len(everything) == 542
    assert everything[0] == END
    assert {"he", "she"} == set(words.PRONOUNS)
    assert set(words.NAMES) == {*words.GIRLS, *words.BOYS}
    with pytest.raises(ValueError, match="143 words are wanted of a list of 142"):
        Lexicon.of(143, 2, 1, 3)


class Reader:
    """Reads a story sentence by sentence and asserts that it may say so. Not the grammar's code."""

    def __init__(self, sentences: list[list[str]]) -> None:
        self.place: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.lying: dict[str, str] = {}
        self.look: dict[str, str] = {}
        self.hero = self.wish = self.last = ""
        for number, sentence in enumerate(sentences):
            self.read(number, sentence)

    def read(self, number: int, s: list[str]) -> None:
        if number == 0:
            assert (s[0], s[-4:-1]) == ("once", ["were", "in", "the"])
            names = s[1:-4:2]
            assert s[2:-4:2] == ["and"] * (len(names) - 1)
            assert len(set(names)) == len(names) in (2, 3)
            self.place = dict.fromkeys(names, s[-1])
        elif number <= len(self.place):
            assert s[0] == list(self.place)[number - 1]
            assert s[1:3] == ["had", "a"]
            look, thing = s[3:]
            assert thing not in self.look
            self.look[thing], self.owner[thing] = look, s[0]
        elif number == len(self.place) + 1:
            self.hero, self.wish = s[0], self.thing(s[3:])
            assert s[1:3] == ["wanted", "the"]
            assert self.owner[self.wish] != self.hero
            self.last = self.hero
        elif s[0] == "so":
            glad = self.owner.get(self.wish) == self.hero
            assert s[1:3] == [self.hero, "was"]
            assert s[3] in (words.GLAD if glad else words.SAD)
        else:
            assert self.owner.get(self.wish) != self.hero, "it goes on after the wish came true"
            self.event(s)

    def thing(self, pair: list[str]) -> str:
        assert self.look[pair[1]] == pair[0]
        return pair[1]

    def event(self, s: list[str]) -> None:
        if s[0] == "where":
            cut = s.index("?")
            thing = self.thing(s[3:cut])
            if thing in self.owner:
                assert s[cut + 1 :] == [self.owner[thing], "had", "it"]
            else:
                assert s[cut + 1 :] == ["it", "was", "in", "the", self.lying[thing]]
            self.last = ""
            return
        if s[0] in words.PRONOUNS:
            assert s[0] == words.PRONOUNS[self.last in words.GIRLS]
        else:
            self.last = s[0]
        who, verb, rest = self.last, s[1], s[2:]
        here = self.place[who]
        if verb == "went":
            been = {here, *self.places}
            assert (rest[0] == "back") == (rest[-1] in been)
            assert rest[-1] != here
            self.place[who] = rest[-1]
            self.places.add(rest[-1])
        elif verb == "missed":
            assert self.place[rest[0]] != here
            assert rest[1:] == [",", "who", "was", "in", "the", self.place[rest[0]]]
        elif verb == "saw" and rest[0] != "the":
            assert who != rest[0]
            assert self.place[rest[0]] == here
        elif verb in ("saw", "took"):
            thing = self.thing(rest[1:])
            assert self.lying[thing] == here
            if verb == "took":
                del self.lying[thing]
                self.owner[thing] = who
        else:
            at = rest.index("the")
            thing = self.thing(rest[at + 1 : at + 3])
            assert self.owner[thing] == who
            assert (verb, rest[:at]) in [("gave", []), ("dropped", []), ("still", ["had"])]
            if verb == "gave":
                assert rest[at + 3] == "to"
                assert self.place[rest[at + 4]] == here
                self.owner[thing] = rest[at + 4]
            elif verb == "dropped":
                del self.owner[thing]
                self.lying[thing] = here

    @property
    def places(self) -> set[str]:
        """Where somebody has been in the story."""
        if not hasattr(self, "_places"):
            self._places = set(self.place.values())
        return self._places


@given(st.integers(0, 2**64 - 1), counts)
def test_what_is_said_agrees_with_what_was_said_before(
    seed: int, sizes: tuple[int, int, int, int]
) -> None:
    lexicon = Lexicon.of(*sizes)
    ids, nats = draw(uniform(RandomStream(seed)), lexicon, 2, 400)
    assert (nats >= 0).all()
    for row in ids:
        assert row[0] == 0
        whole = " ".join(said(lexicon, row)).split(f"{END} ")[1:]
        for place, story in enumerate(whole):
            sentences = [sentence.split() for sentence in story.replace("?", "? ").split(".")]
            last = place == len(whole) - 1  # cut somewhere
            assert last or sentences[-1] == []
            Reader(sentences[:-1])


@given(st.integers(0, 2**64 - 1))
def test_nats_are_those_of_what_may_be_said_next(seed: int) -> None:
    ids, nats = draw(uniform(RandomStream(seed)), FEW, 1, 90)
    row = said(FEW, ids[0])
    for at in range(1, len(row), 7):
        choice = options(FEW, row[1:at])
        share = choice[row[at]] / sum(choice.values())
        assert nats[0, at - 1] == pytest.approx(-math.log(share), abs=1e-12)


def beginnings(lexicon: Lexicon, length: int) -> list[dict[tuple[str, ...], float]]:
    """Return all rows' beginnings of 0, 1, … words with their probabilities."""
    found = [{(): 1.0}]
    for _ in range(length):
        longer = {}
        for before, probability in found[-1].items():
            choice = options(lexicon, before)
            total = sum(choice.values())
            for word, weight in choice.items():
                longer[*before, word] = probability * weight / total
        found.append(longer)
    return found


def test_the_entropy_is_that_of_all_stories_counted_out() -> None:
    """Of all beginnings of a tiny grammar: the mean nats drawn are the entropy of the next word."""
    length = 31
    each = beginnings(TINY, length)
    assert len(each[-1]) > 1000
    for one in each:
        assert sum(one.values()) == pytest.approx(1)
    whole = [-sum(p * math.log(p) for p in one.values()) for one in each]
    exact = np.diff(whole)
    ids, nats = draw(uniform(RandomStream(3)), TINY, 4000, length)
    errors = nats.std(axis=0, ddof=1) / math.sqrt(len(nats))
    assert (np.abs(nats.mean(axis=0) - exact) <= 5 * errors + 1e-9).all()
    assert nats.mean() == pytest.approx(exact.mean(), abs=0.01)
    # And of each row its own probability.
    for row, costs in zip(ids[:300], nats[:300], strict=True):
        probability = each[-1][tuple(said(TINY, row)[1:])]
        assert costs.sum() == pytest.approx(-math.log(probability))


def test_what_no_story_says_is_refused() -> None:
    begin = "once mia and tom were in the garden . mia had a red ball . tom had a red doll ."
    assert set(options(TINY, begin.split())) == {"mia", "tom"}
    assert options(TINY, [*begin.split(), "mia", "wanted", "the", "red"]) == {"doll": 1}
    for more in (
        "anna",
        "mia had",
        "mia wanted the red ball",
        "mia wanted the red doll . she took",
    ):
        with pytest.raises(ValueError, match="cannot come after"):
            options(TINY, [*begin.split(), *more.split()])
    assert options(TINY, [])["once"] == 1
    end = f"{begin} mia wanted the red doll . tom gave the red doll to mia . so mia was happy ."
    assert options(TINY, end.split()) == {END: 1}
    assert "once" in options(TINY, [*end.split(), END])


def test_things_that_can_be_meant_are_equally_likely() -> None:
    begin = "once mia and tom and anna were in the garden ."
    for person, thing in (("mia", "red ball"), ("tom", "red doll"), ("anna", "blue book")):
        begin += f" {person} had a {thing} ."
    asked = f"{begin} mia wanted the blue book . where was the".split()
    assert options(FEW, asked) == {"red": 2, "blue": 1}
    assert options(FEW, [*asked, "red"]) == {"ball": 1, "doll": 1}


def test_who_does_not_remember_pays_for_it() -> None:
    """No model of one or two tokens before can come near: not even the best of them on these rows.

    The entropy of a token given the ones before it, both as counted here, is below the loss of
    any model that sees no more.
    """
    ids, nats = draw(uniform(RandomStream(5)), FEW, 1500, 64)
    entropy = nats.mean()
    rows = ids.tolist()

    def least(context: int) -> float:
        asked = [(tuple(r[max(0, t - context) : t]), r[t]) for r in rows for t in range(1, 65)]
        pairs, before = Counter(asked), Counter(context for context, _ in asked)
        return -sum(n * math.log(n / before[c]) for (c, _), n in pairs.items()) / len(asked)

    assert least(1) > entropy + 0.7
    assert least(2) > entropy + 0.4


def test_weights_are_whole_and_positive() -> None:
    for lexicon in (TINY, Lexicon.of(142, 90, 40, 226)):
        for listed in (lexicon.names, lexicon.places, lexicon.looks, lexicon.things):
            assert all(type(weight) is int and weight > 0 for weight in listed.values())
            assert all(a >= b for a, b in pairwise(listed.values()))


def test_rows_are_asked_for_their_next_token(tmp_path: Path) -> None:
    folder, manifest = prepare(tmp_path)
    vocabulary = len(Lexicon.of(5, 3, 2, 4).vocabulary)
    assert manifest.shape == {"stories.vocabulary": vocabulary, "stories.length": 60}
    assert manifest.rows == {"train": 20, "search": 30, "test": 25}
    for split in SPLITS:
        inputs, targets = (
            np.load(folder / split / f"stories_{what}.npy") for what in ("inputs", "targets")
        )
        assert inputs.dtype == targets.dtype == np.int16
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        assert (inputs[:, 0] == 0).all()
        assert parts_fault(folder / split, manifest.rows[split], manifest.shape) == ""


def test_the_manifest_knows_the_loss_of_the_true_model(tmp_path: Path) -> None:
    folder, manifest = prepare(tmp_path)
    lexicon = Lexicon.of(5, 3, 2, 4)
    for split, suffix in (("search", ""), ("test", "_test")):
        inputs, targets = (
            np.load(folder / split / f"stories_{what}.npy") for what in ("inputs", "targets")
        )
        nats = []
        for row in np.column_stack([inputs, targets[:, -1]])[:3]:
            spoken = said(lexicon, row)
            for at in range(1, 61):
                choice = options(lexicon, spoken[1:at])
                nats.append(-math.log(choice[spoken[at]] / sum(choice.values())))
        _, costs = draw(uniform(RandomStream(1, 2 if split == "search" else 3)), lexicon, 30, 60)
        costs = costs[: len(inputs)]
        assert costs[:3].mean() == pytest.approx(np.mean(nats))
        assert manifest.baselines[f"entropy{suffix}"] == round(costs.mean(), 6)
        order = ("entropy", "ngram", "bigram", "unigram", "uniform")
        losses = [manifest.baselines[f"{name}{suffix}"] for name in order]
        assert losses == sorted(losses)
        assert losses[-1] == round(math.log(manifest.shape["stories.vocabulary"]), 6)


def test_a_hidden_key_changes_search_and_test_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, manifest = prepare(tmp_path)
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", "ab" * 32)
    secret, other = prepare(tmp_path)
    assert "hidden_key" not in manifest.parameters
    assert len(str(other.parameters["hidden_key"])) == 16
    for split in SPLITS:
        same = [
            (public / split / file.name).read_bytes() == file.read_bytes()
            for file in (secret / split).iterdir()
        ]
        assert same == [split == "train"] * 2
    assert manifest.baselines["entropy"] != other.baselines["entropy"]
    assert prepare(tmp_path)[1].hash == other.hash
    assert (secret / "test").stat().st_mode & 0o077 == 0


def test_splits_are_drawn_apart_and_another_seed_gives_other_rows(tmp_path: Path) -> None:
    folder, manifest = prepare(tmp_path, train=30)
    first = [(folder / s / "stories_inputs.npy").read_bytes() for s in ("train", "search")]
    assert first[0] != first[1]
    assert prepare(tmp_path, train=30, seed=2)[1].hash != manifest.hash


def test_same_parameters_give_the_same_rows_on_every_machine() -> None:
    """If this fails, raise GENERATOR: scores of the old rows do not compare with the new ones."""
    ids, _ = draw(uniform(RandomStream(1, 1)), Lexicon.of(142, 90, 40, 226), 40, 128)
    assert hashlib.sha256(ids.tobytes()).hexdigest()[:16] == "2d71ea15bcba3abc"
    assert stories.GENERATOR == "stories-1"


def test_how_many_are_told_at_once_changes_progress_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    p = stories.StoriesParameters.model_validate(SMALL)
    seen: list[tuple[str, int, int]] = []
    rows, entropy = stories.generate(p, lambda *what: None)
    monkeypatch.setattr(stories, "ROWS_AT_ONCE", 7)
    again, nats = stories.generate(p, lambda *what: seen.append(what))
    assert all((rows[split] == again[split]).all() for split in SPLITS)
    assert nats == pytest.approx(entropy, abs=1e-12)
    assert seen[0] == ("telling stories, rows", 0, 75)
    assert seen[-1] == ("telling stories, rows", 75, 75)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"names": 143}, "names"),
        ({"names": 2}, "names"),
        ({"things": 2}, "things"),
        ({"places": 1}, "places"),
        ({"length": 7}, "length"),
        ({"test": 1}, "test"),
        ({"seeds": 1}, "seeds"),
    ],
)
def test_what_cannot_be_told_is_refused(
    tmp_path: Path, changes: dict[str, Value], sentence: str
) -> None:
    with pytest.raises(ConfigError) as error:
        prepare(tmp_path, **changes)
    assert "The data table of compose/stories, profile smoke, is wrong." in str(error.value)
    assert sentence in str(error.value)


def test_least_sizes_can_be_told(tmp_path: Path) -> None:
    _, manifest = prepare(
        tmp_path, names=3, places=2, looks=1, things=3, length=8, train=1, search=2, test=2
    )
    assert manifest.shape["stories.vocabulary"] == len(TINY.vocabulary)
    assert all(math.isfinite(value) for value in manifest.baselines.values())


def test_a_number_next_to_one_is_still_a_word() -> None:
    word, cost = grammar._chosen({"a": 1, "b": 3}, iter([1 - 2**-53]))
    assert (word, cost) == ("b", math.log(4 / 3))
    assert grammar._chosen({"a": 1, "b": 3}, iter([0.0]))[0] == "a"
