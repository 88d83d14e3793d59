"""Makes what judges are asked and what they answer: tasks with other limits, made-up results."""

from collections.abc import Mapping

from harness.core.jobs import JobSpec
from scorers.request import Evaluated
from scorers.score import Score
from scorers.submission import hash_files
from tasks.spec import Task


def limited(
    task: Task,
    profile: str,
    limits: Mapping[str, float],
    settings: Mapping[str, object] = {},
    **changes: object,
) -> Task:
    """Return the task with other limits and settings in a profile; ``changes`` are of the task."""
    chosen = task.profile(profile)
    changed = chosen.model_copy(
        update={
            "limits": chosen.limits.model_copy(update=limits),
            "settings": {**chosen.settings, **settings},
        }
    )
    profiles = {**task.definition.profiles, profile: changed}
    definition = task.definition.model_copy(update={"profiles": profiles, **changes})
    return Task(task.folder, definition, task.variant)


def answering(job: JobSpec, like: Score, log: bytes = b"", **changes: object) -> Evaluated:
    """Return a result that fits ``job``; all other values are those of ``like`` or ``changes``."""
    asked = {"split": job.split, "training_seed": job.training_seed, "audit_seed": job.audit_seed}
    found = {**job.expected.model_dump(exclude={"hidden_key"}), "sandbox": job.sandbox}
    made = like.conditions.model_copy(update={**asked, **found, "profile": job.profile})
    values = {"submission": hash_files(job.files), "conditions": made, **changes}
    return Evaluated(like.model_copy(update=values), log)
