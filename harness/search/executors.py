"""The executors by name: an executor finds a place for each evaluation of a run."""

from collections.abc import Callable

from harness.base.registry import Registry, name_fault
from harness.search.evaluator import Evaluator
from harness.search.local import LocalEvaluator

PARTS = ("get_ready", "submit", "close")


def _fault(name: str, executor: object) -> str:
    if not callable(executor):
        return "wanted: a class whose instances are harness.search.evaluator.Evaluator"
    absent = [part for part in PARTS if not callable(getattr(executor, part, None))]
    return f"it has no method {', '.join(absent)}" if absent else name_fault(name, executor)


EXECUTORS: Registry[Callable[[int], Evaluator]] = Registry(
    "executor", "harness.executors", {LocalEvaluator.name: LocalEvaluator}, _fault
)
"""Each is called with the largest number of jobs that a run has under way at once."""
