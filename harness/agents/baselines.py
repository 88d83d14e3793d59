"""random and tpe: the classical baselines that agents with a language model must beat.

Both choose values for the knobs (parameters) that a task declares.
"""

from harness.agents.space import Space
from harness.base.errors import ConfigError
from harness.base.seeds import derive, stream
from harness.core.agent import Answer, Ask
from tasks.definition import Knob


class RandomAgent:
    """Draws every knob independently, and no point twice."""

    name = "random"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        """Return a point drawn from the node's own seed. Raises Exhausted if all were tried."""
        space = Space.of(ask)
        rng = stream(ask.seed, "knobs")
        return space.answer(space.draw_untried(space.tried(ask.tree), rng))


class TpeAgent:
    """Tree-structured Parzen estimator (Bergstra et al., 2011), by Optuna.

    The study is rebuilt from the tree at every request, so that a resumed run suggests the same
    values. Invalid nodes enter the study as failed trials. A point may be suggested again.
    """

    name = "tpe"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        """Return the point that TPE suggests from the tree so far."""
        try:
            import optuna
        except ImportError as error:
            raise ConfigError(
                "Agent tpe needs Optuna, which is not installed.",
                remedy="pip install 'aira-harness[tpe]'",
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = Space.of(ask)
        distributions = {name: _distribution(knob) for name, knob in space.knobs.items()}
        study = optuna.create_study(
            direction="maximize" if ask.tree.maximize else "minimize",
            sampler=optuna.samplers.TPESampler(seed=derive(ask.seed, "tpe"), n_startup_trials=5),
        )
        for node, _ in space.scored(ask.tree):
            state = optuna.trial.TrialState.COMPLETE if node.valid else optuna.trial.TrialState.FAIL
            study.add_trial(
                optuna.trial.create_trial(
                    params=node.knobs,
                    distributions=distributions,
                    value=node.score if node.valid else None,
                    state=state,
                )
            )
        params = study.ask(distributions).params
        return space.answer(tuple(params[name] for name in space.knobs))


def _distribution(knob: Knob):  # type: ignore[no-untyped-def]  # noqa: ANN202 (optuna is lazy)
    from optuna import distributions

    if knob.choices:
        return distributions.CategoricalDistribution(knob.choices)
    if knob.integer:
        return distributions.IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
