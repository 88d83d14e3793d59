"""random and tpe: the classical baselines that agents with a language model must beat.

Both choose values for the knobs (parameters) that a task declares for ``designs/searchable.py``.
"""

import math
from random import Random

from harness.base.errors import ConfigError
from harness.base.seeds import derive, stream
from harness.core.agent import Answer, Ask
from tasks.definition import Knob, Value
from tasks.spec import Task


class RandomAgent:
    """Draws every knob independently."""

    name = "random"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        """Return the searchable design with knobs drawn from the node's own seed."""
        rng = stream(ask.seed, "knobs")
        values = {name: draw(knob, rng) for name, knob in _knobs(ask.task).items()}
        return _answer(ask.task, values)


class TpeAgent:
    """Tree-structured Parzen estimator (Bergstra et al., 2011), by Optuna.

    The study is rebuilt from the tree at every request, so that a resumed run suggests the same
    values. Invalid nodes enter the study as failed trials.
    """

    name = "tpe"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        """Return the searchable design with the knobs that TPE suggests from the tree so far."""
        try:
            import optuna
        except ImportError as error:
            raise ConfigError(
                "Agent tpe needs Optuna, which is not installed.",
                remedy="pip install 'aira-harness[tpe]'",
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = {name: _distribution(knob) for name, knob in _knobs(ask.task).items()}
        study = optuna.create_study(
            direction="maximize" if ask.tree.maximize else "minimize",
            sampler=optuna.samplers.TPESampler(seed=derive(ask.seed, "tpe"), n_startup_trials=5),
        )
        for node in ask.tree.scored():
            if node.knobs is None or set(node.knobs) != set(space):
                continue
            state = optuna.trial.TrialState.COMPLETE if node.valid else optuna.trial.TrialState.FAIL
            study.add_trial(
                optuna.trial.create_trial(
                    params=node.knobs,
                    distributions=space,
                    value=node.score if node.valid else None,
                    state=state,
                )
            )
        return _answer(ask.task, dict(study.ask(space).params))


def draw(knob: Knob, rng: Random) -> Value:
    """Draw one value of a knob, log-uniformly if ``knob.log`` is set."""
    if knob.choices:
        return rng.choice(knob.choices)
    if knob.log:
        value = math.exp(rng.uniform(math.log(knob.low), math.log(knob.high)))
    else:
        value = rng.uniform(knob.low, knob.high)
    return round(value) if knob.integer else value


def _knobs(task: Task) -> dict[str, Knob]:
    knobs = task.knobs()
    if not knobs:
        raise ConfigError(
            f"Task {task.name} declares no knobs to search.", remedy="--agent reference"
        )
    return knobs


def _answer(task: Task, values: dict[str, Value]) -> Answer:
    note = ", ".join(
        f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()
    )
    return Answer(task.render(values), note=note, knobs=values)


def _distribution(knob: Knob):  # type: ignore[no-untyped-def]  # noqa: ANN202 (optuna is lazy)
    from optuna import distributions

    if knob.choices:
        return distributions.CategoricalDistribution(knob.choices)
    if knob.integer:
        return distributions.IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
