"""Makes results for the judges with which tests replace ``harness.search.local.judge``."""

from harness.core.jobs import JobSpec
from scorers.request import Evaluated
from scorers.score import Score
from scorers.submission import hash_files


def answering(job: JobSpec, like: Score, log: bytes = b"", **changes: object) -> Evaluated:
    """Return a result that fits ``job``; all other values are those of ``like`` or ``changes``."""
    asked = {"split": job.split, "training_seed": job.training_seed, "audit_seed": job.audit_seed}
    found = {**job.expected.model_dump(exclude={"hidden_key"}), "sandbox": job.sandbox}
    made = like.conditions.model_copy(update={**asked, **found, "profile": job.profile})
    values = {"submission": hash_files(job.files), "conditions": made, **changes}
    return Evaluated(like.model_copy(update=values), log)
