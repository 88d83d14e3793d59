"""Which fields of a run may change between its first process and its last, and which never may.

Anybody can edit ``run.toml`` and ``lock.json`` on disk. So the lock holds the request as well, and
the journal's first line holds the lock's digest: no result can claim what was not done. Each field
has its rule here; docs/concepts/runs.md has the same table.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from harness.base.errors import ConfigError
from harness.base.seeds import derive
from harness.core.asked import Asked, Lockfile
from scorers import conditions
from tasks import hidden

ChangeRule = Literal["fixed", "may rise", "as resolved", "free"]
"""fixed: may not change. may rise: a budget, which may be raised or removed. as resolved: where
something is found; the thing itself is compared, in the lock. free: affects no claimed result."""

ASKED: Mapping[str, ChangeRule] = {
    "format": "fixed",
    "task": "fixed",
    "profile": "fixed",
    "agent": "fixed",
    "policy": "fixed",
    "settings": "fixed",
    "steps": "may rise",
    "time_s": "may rise",
    "seed": "fixed",
    "sandbox": "fixed",
    "executor": "as resolved",
    "workers": "fixed",
    "data": "fixed",
    "gpu_hours": "may rise",
    "input_tokens": "may rise",
    "output_tokens": "may rise",
    "dollars": "may rise",
    "charge_waiting": "fixed",
    "on_divergence": "free",
    "writing.base_url": "as resolved",
    "writing.effort": "fixed",
    "writing.temperature": "fixed",
    "writing.max_answer_tokens": "fixed",
    "writing.agents_file": "as resolved",
    "writing.prompts": "as resolved",
    "writing.literature": "as resolved",
    "writing.answer_format": "fixed",
    "writing.analyze": "fixed",
    "writing.complexity": "fixed",
    "writing.blind": "fixed",
}
"""The rules for ``run.toml``, which is compared with the request in the lock."""

LOCKED: Mapping[str, ChangeRule] = {
    "format": "fixed",
    "asked": "as resolved",  # ASKED
    "harness": "free",
    "task_hash": "fixed",
    "data_hash": "fixed",
    "hidden_key": "fixed",
    "data": "as resolved",
    "scorer": "fixed",
    "sandbox": "as resolved",  # a resumed run uses the lock's
    "image": "fixed",
    "policy": "fixed",
    "agent": "fixed",
    "prices": "free",  # each call is recorded at the price it had
    "versions": "fixed",
    "hardware": "fixed",
    "direction": "fixed",
    "audit_key": "as resolved",  # drawn once
}
"""The rules for ``lock.json``, which is compared with what its names resolve to on a resume."""


def edited(asked: Asked, lock: Lockfile) -> str:
    """Return in words what was edited in ``run.toml`` and may not be; empty if nothing was.

    Also empty for an older lock, which does not hold the request.
    """
    if lock.asked is None or lock.asked == asked:
        return ""
    return "; ".join(_edits(_flat(lock.asked), _flat(asked)))


def refuse_edited(asked: Asked, lock: Lockfile, file: object) -> None:
    """Raise ConfigError naming what was edited in ``run.toml``: the values then and now."""
    if changes := edited(asked, lock):
        raise ConfigError(
            f"{file} was edited after the run began, and would claim what was not done.",
            cause=changes,
            remedy="put back what it was, or start a new run; docs/concepts/runs.md tells what may "
            "change",
        )


def refuse_other(before: Lockfile, now: Lockfile) -> None:
    """Raise ConfigError where later nodes could not be compared with earlier ones."""
    if before.hidden_key != now.hidden_key:
        raise ConfigError(
            "This run began with other hidden rows: later nodes would not compare.",
            cause=f"then {hidden.named(before.hidden_key)}, now {hidden.named(now.hidden_key)}",
            remedy=hidden.remedy(before.hidden_key),
        )
    for name, rule in LOCKED.items():
        # A field that an old lock does not hold was not known then.
        if rule != "fixed" or name not in before.model_fields_set:
            continue
        old, new = getattr(before, name), getattr(now, name)
        if name == "scorer":
            old = conditions.as_today(old)
        if old != new:
            raise ConfigError(
                f"This run began with another {name}: later nodes would not compare.",
                cause="; ".join(_differences(name, old, new)),
                remedy="go back to what it began with, or start a new run",
            )


def refuse_other_seed(asked: Asked, trained: Mapping[int, int]) -> None:
    """Raise ConfigError if nodes were trained with seeds that do not derive from the run's seed.

    ``trained``: the training seed of each scored node. This also finds an edited seed where an old
    lock does not hold the request.
    """
    for node, seed in trained.items():
        if seed != derive(asked.seed, "node", node):
            raise ConfigError(
                "run.toml was edited after the run began, and would claim what was not done.",
                cause=f"node {node} was trained with a seed that does not come of seed "
                f"{asked.seed}",
                remedy="put back the seed that it began with, or start a new run",
            )


def _edits(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, rule in ASKED.items():
        old, new = before[name], now[name]
        if old == new or rule in ("as resolved", "free"):
            continue
        if rule == "may rise":
            if old is not None and (new is None or new >= old):
                continue
            yield f"{name}: then {_word(old)}, now {_word(new)} (it may only rise)"
        else:
            yield f"{name}: then {_word(old)}, now {_word(new)}"


def _flat(asked: Asked) -> dict[str, Any]:
    return {**dict(asked), **{f"writing.{name}": value for name, value in asked.writing}}


def _differences(name: str, old: object, new: object) -> Iterator[str]:
    """Yield the values that differ; for tables only the entries that differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from _differences(f"{name}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield f"{name}: then {_word(old)}, now {_word(new)}"


def _word(value: object) -> str:
    return "nothing" if value is None else repr(value)
