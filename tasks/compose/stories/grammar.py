"""A seeded grammar of short stories, whose every token has a probability that can be computed.

A story names two or three people in one place, gives each a thing, and says what one of them wants.
Then things happen: people go somewhere, take, drop and give things, see and miss each other, and
somebody asks where a thing is. It ends well when the wanted thing has come to the one who wants
it, and otherwise badly at some point. Whatever is said later agrees with what was said before: who
holds what, where everybody is, how a thing looks, who "she" is.

``tell`` is one story as a coroutine: it yields what may be said next, and is sent what was said.
All it knows are the words so far, so a text has one derivation, and the probability of a word given
all before it is its weight by the sum of the weights. All weights are whole numbers.
"""

import math
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.compose.stories import words
from tasks.stream import Doubles, RandomStream

Choice = Mapping[str, int]
"""What may be said next, each word with its weight."""
Telling = Generator[Choice, str, None]

END = "<story>"
"""Stands before each story. Its id is 0."""
DRAWN_AT_ONCE = 1 << 14
COMMON = 960
"""The weights of a list of words are about Zipf's: COMMON / 4, COMMON / 5, ..."""


@dataclass(frozen=True)
class Lexicon:
    """The names, places, looks and things of all stories, each with a weight.

    Names of girls and boys take turns.
    """

    names: Choice
    places: Choice
    looks: Choice
    things: Choice

    @classmethod
    def of(cls, names: int, places: int, looks: int, things: int) -> Self:
        """Return so many words of each list. Raises ValueError if there are not so many."""
        return cls(
            _first(words.NAMES, names),
            _first(words.PLACES, places),
            _first(words.LOOKS, looks),
            _first(words.THINGS, things),
        )

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """All words; a word's place is its id."""
        lists = (self.names, self.places, self.looks, self.things)
        return (
            END,
            *words.OTHERS,
            *words.GLAD,
            *words.SAD,
            *(one for each in lists for one in each),
        )

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: number for number, word in enumerate(self.vocabulary)}


def tell(lexicon: Lexicon) -> Telling:
    """Tell one story; see the module. It ends when nothing more may be said."""
    yield from _say("once")
    cast: list[str] = []
    while True:
        cast.append((yield _without(lexicon.names, cast)))
        links = {1: {"and": 1}, 2: {"and": 1, "were": 1}, 3: {"were": 1}}
        if (yield links[len(cast)]) == "were":
            break
    yield from _say("in", "the")
    home = yield lexicon.places
    yield from _say(".")
    story = _Story(lexicon, cast, home)
    for person in cast:
        yield from _say(person, "had", "a")
        look = yield lexicon.looks
        thing = yield _without(lexicon.things, story.keeper)
        story.look[thing], story.keeper[thing] = look, person
        yield from _say(".")
    seeker = yield dict.fromkeys(cast, 1)
    yield from _say("wanted", "the")
    wanted = yield from story.point([t for t, who in story.keeper.items() if who != seeker])
    yield from _say(".")
    last = seeker
    while story.keeper[wanted] != seeker:
        pronoun = words.PRONOUNS[last in words.GIRLS] if last else ""
        first = yield {
            "so": 1,
            "where": 3,
            **dict.fromkeys(cast, 5),
            **({pronoun: 4} if last else {}),
        }
        if first == "so":
            break
        if first == "where":
            yield from story.ask()
            last = ""
            continue
        last = last if first == pronoun else first
        yield from story.act(last, wanted, seeker)
    else:
        yield from _say("so")
    yield from _say(seeker, "was")
    yield _zipf(words.GLAD if story.keeper[wanted] == seeker else words.SAD)
    yield from _say(".")


class _Story:
    """The state of a story: where people are, who or what place has which thing, how it looks."""

    def __init__(self, lexicon: Lexicon, cast: Sequence[str], home: str) -> None:
        self.lexicon = lexicon
        self.at = dict.fromkeys(cast, home)
        self.seen = [home]
        self.keeper: dict[str, str] = {}
        self.look: dict[str, str] = {}

    def point(self, things: Sequence[str]) -> Generator[Choice, str, str]:
        """Name one of the things, all equally likely, by its look and itself; return it."""
        looks = [self.look[thing] for thing in things]
        look = yield {one: looks.count(one) for one in looks}
        return (yield dict.fromkeys((one for one in things if self.look[one] == look), 1))

    def ask(self) -> Telling:
        """Ask after a thing, and answer."""
        yield from _say("was", "the")
        thing = yield from self.point(list(self.keeper))
        keeper = self.keeper[thing]
        yield from _say(
            "?",
            *((keeper, "had", "it") if keeper in self.at else ("it", "was", "in", "the", keeper)),
        )
        yield from _say(".")

    def act(self, person: str, wanted: str, seeker: str) -> Telling:
        """Let a person do one thing that is possible, from the verb to the full stop."""
        here = self.at[person]
        mine = [thing for thing, keeper in self.keeper.items() if keeper == person]
        lying = [thing for thing, keeper in self.keeper.items() if keeper == here]
        near = [one for one, place in self.at.items() if place == here and one != person]
        far = [one for one, place in self.at.items() if place != here]
        verb = yield _possible(
            went=3,
            saw=2 * bool(near or lying),
            missed=2 * bool(far),
            took=(9 if person == seeker and wanted in lying else 4) * bool(lying),
            gave=(9 if seeker in near and wanted in mine else 3) * bool(mine and near),
            dropped=2 * bool(mine),
            still=2 * bool(mine),
        )
        if verb == "went":
            new = _without(self.lexicon.places, self.seen)
            back = [place for place in self.seen if place != here]
            if (yield _possible(back=3 * bool(back), to=2 * bool(new))) == "back":
                yield from _say("to")
                new = dict.fromkeys(back, 1)
            yield from _say("the")
            place = yield new
            self.at[person] = place
            self.seen += [place] * (place not in self.seen)
        elif verb == "missed":
            whom = yield dict.fromkeys(far, 1)
            yield from _say(",", "who", "was", "in", "the", self.at[whom])
        elif verb == "saw":
            if (yield dict.fromkeys(near, 2) | _possible(the=bool(lying))) == "the":
                yield from self.point(lying)
        else:
            yield from _say(*(("had", "the") if verb == "still" else ("the",)))
            thing = yield from self.point(lying if verb == "took" else mine)
            if verb == "gave":
                yield from _say("to")
                self.keeper[thing] = yield dict.fromkeys(near, 1)
            elif verb != "still":
                self.keeper[thing] = person if verb == "took" else here
        yield from _say(".")


def draw(
    numbers: Iterator[float], lexicon: Lexicon, rows: int, length: int
) -> tuple[NDArray[np.int16], Doubles]:
    """Return rows of ids (rows, length + 1), and the nats of each id but the first (rows, length).

    ``numbers`` are drawn evenly from [0, 1), as by ``uniform``. A row begins with END and the
    beginning of a story, and holds one story after the other, each with END before it; the last one
    is cut. So no id lacks a part of its past. Its nats are the negative logarithm of its
    probability given the ids before it.
    """
    ids = np.zeros((rows, length + 1), np.int16)
    nats = np.zeros((rows, length))
    for row, costs in zip(ids, nats, strict=True):
        at = 1
        while at <= length:
            telling = tell(lexicon)
            choice: Choice | None = next(telling)
            while choice is not None and at <= length:
                word, cost = _chosen(choice, numbers)
                row[at], costs[at - 1] = lexicon.ids[word], cost
                at += 1
                choice = _after(telling, word)
            at += 1  # END, which is 0 and certain
    return ids, nats


def options(lexicon: Lexicon, said: Sequence[str]) -> Choice:
    """Return what may come after the words of a row so far, whose END at the beginning is left out.

    Raises ValueError if no row begins like this.
    """
    telling = tell(lexicon)
    choice: Choice | None = next(telling)
    for place, word in enumerate(said):
        allowed = {END: 1} if choice is None else choice
        if not allowed.get(word):
            raise ValueError(
                f"word {place}, {word!r}, cannot come after {' '.join(said[:place])!r}"
            )
        if choice is None:
            telling = tell(lexicon)
            choice = next(telling)
        else:
            choice = _after(telling, word)
    return {END: 1} if choice is None else choice


def _after(telling: Telling, word: str) -> Choice | None:
    try:
        return telling.send(word)
    except StopIteration:
        return None


def uniform(stream: RandomStream) -> Iterator[float]:
    """Yield numbers in [0, 1) without end."""
    while True:
        yield from stream.uniform(DRAWN_AT_ONCE).tolist()


def _chosen(choice: Choice, numbers: Iterator[float]) -> tuple[str, float]:
    """Return a word, drawn by the weights, and its nats. What is certain takes no number."""
    if len(choice) == 1:
        return next(iter(choice)), 0.0
    total = sum(choice.values())
    left = int(next(numbers) * total)
    for word, weight in choice.items():
        left -= weight
        if left < 0:
            return word, math.log(total / weight)
    raise AssertionError("a number from 0 to 1 is below the sum of the weights")


def _say(*said: str) -> Telling:
    for word in said:
        yield {word: 1}


def _possible(**weights: int) -> dict[str, int]:
    return {word: int(weight) for word, weight in weights.items() if weight}


def _without(choice: Choice, taken: Collection[str]) -> dict[str, int]:
    return {word: weight for word, weight in choice.items() if word not in taken}


def _zipf(listed: Sequence[str]) -> dict[str, int]:
    return {word: COMMON // (place + 4) for place, word in enumerate(listed)}


def _first(listed: Sequence[str], count: int) -> Choice:
    if not 0 < count <= len(listed):
        raise ValueError(f"{count} words are wanted of a list of {len(listed)}")
    return _zipf(listed[:count])
