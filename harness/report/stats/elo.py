"""Elo ratings: a Bradley-Terry model of who scores better, fitted by Newton's method.

On each task every run of one player meets every run of another: the better score wins, equal
scores draw, an invalid run loses to a valid one. The model uses each pair's share of wins per task,
so that a task with more seeds has no more weight. The human reference is a player with one run, its
published score. Intervals resample tasks and, within a task, each player's runs. AIRS-Bench
resamples matches instead, which treats pairs that share a run as independent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.base.seeds import derive
from harness.report.stats import student
from harness.report.stats.intervals import Interval, expanded_tail

Doubles = NDArray[np.float64]
Scores = Sequence[float | None]

CENTRE, SCALE = 1000.0, 400.0 / math.log(10)
TIE = 1e-6
"""Two scores that differ by at most this much draw (AIRS-Bench's tolerance)."""
PENALTY = 0.05
"""Weight of the sum of squared strengths, which keeps an always winning player's rating finite."""
RESAMPLES = 200
STEPS, LONGEST_STEP, NEAR = 50, 3.0, 1e-10
NOBODY = np.zeros((0, 0))


@dataclass(frozen=True, slots=True)
class Player:
    """One player's rating; ``interval`` is None where resampling cannot change anything."""

    elo: float
    interval: Interval | None


def ratings(
    scores: Mapping[str, Mapping[str, Scores]],
    directions: Mapping[str, str],
) -> dict[str, Player]:
    """Rate players from ``scores[task][player]``, the runs' scores (None: invalid).

    ``directions`` of tasks: "maximize" or "minimize". Empty with fewer than two players.
    """
    players = sorted({p for task in scores.values() for p, runs in task.items() if runs})
    if len(players) < 2:
        return {}
    boards = [
        _TaskResults(task, players, maximize=directions[name] == "maximize")
        for name, task in sorted(scores.items())  # sorted: same draws for any input order
    ]
    point = SCALE * fit(sum((b.shares() for b in boards), np.zeros((1,)))[None])[0]
    drawn = SCALE * fit(_resampled(boards))
    tail = student.LEVEL / 2
    if len(boards) == 1 and boards[0].fewest > 1:
        # With one task only the seeds are resampled, and intervals would be too narrow. With
        # several tasks, tasks and seeds are resampled, and no correction is needed.
        tail = expanded_tail(boards[0].fewest)
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    varies = len(boards) > 1 or any(board.varies for board in boards)
    return {
        player: Player(
            CENTRE + float(point[i]),
            Interval(CENTRE + float(low[i]), CENTRE + float(high[i]), "elo", "bootstrap")
            if varies
            else None,
        )
        for i, player in enumerate(players)
    }


def fit(wins: Doubles, penalty: float = PENALTY) -> Doubles:
    """Fit many tables of wins at once; return the strengths (natural logarithm, mean 0).

    ``wins``: (tables, players, players), how often the row's player beats the column's. Maximises
    the log likelihood less ``penalty`` times the sum of squared strengths.
    """
    count = wins.shape[-1]
    wins = wins * (1 - np.eye(count))
    games = wins + wins.transpose(0, 2, 1)
    strengths = np.zeros(wins.shape[:2])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(strengths[:, None, :] - strengths[:, :, None]))
        slope = (wins - games * chance).sum(axis=2) - 2 * penalty * strengths
        bend = -games * chance * (1 - chance)
        diagonal = 2 * penalty - bend.sum(axis=2)
        bend[:, np.arange(count), np.arange(count)] = diagonal
        step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
        strengths += np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        if np.abs(step).max() < NEAR:
            break
    return strengths


class _TaskResults:
    """One task: all runs, the player of each run, and which run beats which."""

    def __init__(self, task: Mapping[str, Scores], players: list[str], *, maximize: bool) -> None:
        runs = [(players.index(p), s) for p, own in task.items() for s in own]
        sign = 1.0 if maximize else -1.0
        height = np.array([-math.inf if s is None else sign * s for _, s in runs])
        with np.errstate(invalid="ignore"):  # two invalid runs: -inf less -inf
            ahead = np.nan_to_num(height[:, None] - height[None, :], nan=0.0)
        self.beats = np.where(np.abs(ahead) <= TIE, 0.5, ahead > 0).astype(np.float32)
        owner = np.array([i for i, _ in runs])
        self.owned = [np.flatnonzero(owner == i) for i in range(len(players))]
        self.fewest = min((len(own) for own in self.owned if len(own) > 1), default=1)
        self.varies = any(len(set(height[own])) > 1 for own in self.owned)

    def shares(self) -> Doubles:
        """Return the share of wins of each pair of players."""
        equal: Doubles = self._weighted([np.ones((1, len(own))) for own in self.owned])[0]
        return equal

    def drawn_shares(self, rng: np.random.Generator, count: int) -> Doubles:
        """Return ``shares`` for each of ``count`` resamples of each player's runs."""
        sizes = [len(own) for own in self.owned]
        return self._weighted(
            [rng.multinomial(n, np.full(n, 1 / n), count) if n else NOBODY for n in sizes]
        )

    def _weighted(self, counts: list[NDArray[Any]]) -> Doubles:
        weight = np.zeros((max(map(len, counts)), len(self.beats), len(counts)), np.float32)
        for player, (own, times) in enumerate(zip(self.owned, counts, strict=True)):
            if len(own):
                weight[:, own, player] = times / len(own)
        return (weight.transpose(0, 2, 1) @ (self.beats @ weight)).astype(float)


def _resampled(boards: list[_TaskResults]) -> Doubles:
    rng = np.random.default_rng(derive("elo"))
    times = rng.multinomial(len(boards), np.full(len(boards), 1 / len(boards)), RESAMPLES)
    found: Doubles = sum(
        (
            times[:, i, None, None] * board.drawn_shares(rng, RESAMPLES)
            for i, board in enumerate(boards)
        ),
        np.zeros((1,)),
    )
    return found
