"""Every exception the harness raises on purpose, in one tree.

    HarnessError
    ├── ConfigError            bad input, or something asked for is missing    exit 2
    ├── InfrastructureError    harness or machine failed: retried, no score    exit 3
    │   ├── SandboxStartError
    │   ├── SandboxLostError
    │   ├── TransferError
    │   └── GpuUnavailableError
    ├── JudgeError             the judge failed: score again; no score yet     exit 3
    ├── ProviderError          a model's API failed, after back-off, retries   exit 4
    └── Cancelled              the user asked to stop: no retry, no score      exit 130

The class attributes are the table of failures: the exit code of each, and whether a
retry may help. What a *submission* does wrong is a result with a reason, never an
exception. This module imports nothing of ours, so that every package may import it.
"""

from typing import ClassVar


class HarnessError(Exception):
    """Root of the tree: what happened, why, and what to do about it."""

    exit_code: ClassVar[int] = 70
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, cause: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.message]
        if self.cause:
            parts.append(f"Cause: {self.cause}")
        if self.remedy:
            parts.append(f"Try: {self.remedy}")
        return "\n".join(parts)


class ConfigError(HarnessError):
    """What was asked for is wrong or missing."""

    exit_code = 2


class InfrastructureError(HarnessError):
    """The harness or its machine failed; the submission is not the cause."""

    exit_code = 3
    retryable = True


class SandboxStartError(InfrastructureError):
    """A sandbox could not be started."""


class SandboxLostError(InfrastructureError):
    """A sandbox was lost, and the submission did not cause it."""


class TransferError(InfrastructureError):
    """A file could not be moved into or out of a sandbox."""


class GpuUnavailableError(InfrastructureError):
    """No GPU could be leased."""


class JudgeError(HarnessError):
    """The judge itself failed; the submission can be scored again."""

    exit_code = 3


class ProviderError(HarnessError):
    """A model's API failed, and further retries are not made."""

    exit_code = 4


class Cancelled(HarnessError):
    """The user, or the harness on the user's behalf, stopped the work."""

    exit_code = 130
