"""The judge of classifiers: serves hidden rows and measures accuracy, one answer for each row.

The audits themselves are in ``audits``. Language models are judged in ``language``.
"""

import time
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scorers import audits
from scorers.judge import Check, Times, Verdict, ask, first_failure, follow_training, send_goodbye
from scorers.request import Observe, Request
from scorers.score import Reason
from scorers.wire import LogitsBuffer, Wire

SERVE_ROWS = 64
"""Rows in a request, the same for every submission; audit requests may have fewer."""


class Classification:
    """An Examiner. tokens: ids of a small type, (rows, width); labels: uint8 (rows,)."""

    def __init__(self, folder: Path, classes: int, *, audit_seed: str) -> None:
        self.tokens: NDArray[np.integer[Any]] = np.load(folder / "tokens.npy", allow_pickle=False)
        self.labels: NDArray[np.uint8] = np.load(folder / "labels.npy", allow_pickle=False)
        self.classes = classes
        self._rng = np.random.default_rng(list(audit_seed.encode()))
        self.buffer_bytes = SERVE_ROWS * classes * 4

    @classmethod
    def of(cls, request: Request, *, frozen_at: Path | None) -> Self:
        """Return the examiner of a request."""
        classes = request.manifest.shape["classes"]
        return cls(request.hidden, classes, audit_seed=request.audit_seed)

    def examine(
        self, wire: Wire, buffer: LogitsBuffer, *, times: Times, observe: Observe
    ) -> Verdict:
        """Serve every row and measure the accuracy."""
        train_deadline = times.spawned + times.train_s
        claim = follow_training(wire, train_deadline, observe)
        batches = audits.plan(len(self.tokens), SERVE_ROWS, self._rng)
        observe("serving", {"batches": len(batches)})

        answers: list[audits.Logits] = []
        first = np.zeros((len(self.tokens), self.classes), np.float32)
        deadline = train_deadline
        started = time.monotonic()
        for sequence, batch in enumerate(batches):
            tokens = self.tokens[batch.rows].astype(np.int32)
            shape = (len(batch.rows), 1, self.classes)
            ask(wire, sequence, tokens, shape, deadline)
            copy = np.frombuffer(buffer.take(len(batch.rows) * self.classes * 4), np.float32)
            answers.append(copy.reshape(len(batch.rows), self.classes))
            if sequence == 0:
                started = time.monotonic()
                deadline = started + times.serve_s
            if batch.first:
                first[batch.rows] = answers[-1]
        served = time.monotonic()
        send_goodbye(wire, None, served)

        checks = audit(batches, answers, first)
        order = np.concatenate([b.rows for b in batches if b.first])
        given = audits.answers(first)
        score, error = self.measure(given)
        trend = audits.trend((given == self.labels)[order])
        rising = f"Accuracy rises while serving ({trend.value:.1f} standard deviations)."
        checks.append((trend, Reason.TREND, rising))
        failed, message = first_failure(checks)
        return Verdict(
            score=score,
            standard_error=error,
            audits=tuple(audit for audit, _, _ in checks),
            failed=failed,
            message=message,
            claim=claim,
            train_s=started - times.spawned,
            serve_s=served - started,
            judge_s=time.monotonic() - served,
        )

    def measure(self, given: NDArray[np.int64]) -> tuple[float, float]:
        """Return the accuracy of the predictions ``given`` (rows,), and its standard error."""
        accuracy = float((given == self.labels).mean())
        return accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(self.labels)))

    def close(self) -> None:
        """Do nothing: this examiner holds no resources."""


def audit(
    batches: list[audits.Batch], answers: list[audits.Logits], first: audits.Logits
) -> list[Check]:
    """Return the audit of finiteness and, if it passes, those of statelessness and near-ties."""
    finite = audits.finiteness(sum(int(a.size - np.isfinite(a).sum()) for a in answers))
    checks = [(finite, Reason.NOT_FINITE, f"{finite.value:.0f} served logits are not finite.")]
    if finite.passed:
        for compare in (audits.statelessness, audits.near_ties):
            check, where = compare(batches, answers, first)
            message = f"Logits depend on more than their row: {where}."
            checks.append((check, Reason.STATEFUL, message))
    return checks
