"""Prepare this machine for a request: its task, data, sandbox (which is tested) and GPUs.

No submission is evaluated here: ``harness.search.local`` does that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.base.errors import ConfigError
from harness.base.faults import explain
from harness.base.paths import data_root
from harness.core.asked import Asked
from harness.core.jobs import Expected, JobSpec, Place, differing
from harness.search.leftovers import collect
from sandboxes import registry
from sandboxes.base import Backend
from sandboxes.gpu_pool import GpuPool
from sandboxes.none import NO_SANDBOX
from scorers import conditions, self_test
from scorers.request import Request
from tasks import hidden
from tasks.definition import Manifest, Progress
from tasks.spec import Task, find_task


@dataclass(frozen=True, slots=True)
class Host:
    """This machine, ready to evaluate submissions to one task at one profile.

    ``template`` is a request without a submission. Its GPU stands for all of ``gpus``, which are of
    one model, and is not leased. Each evaluation leases one of ``gpus``; None means the CPU.
    """

    template: Request
    gpus: GpuPool | None
    warning: str | None
    """A warning about the sandbox, if any."""

    @property
    def expected(self) -> Expected:
        """Hashes of the task, data, scorer, key and image that evaluations use here."""
        template = self.template
        return Expected(
            task_hash=template.task.hash(template.profile),
            data_hash=template.manifest.hash,
            hidden_key=str(template.manifest.parameters.get(hidden.PARAMETER, "")),
            scorer=conditions.judge_of(template.task.definition),
            image=template.backend.image,
        )

    @property
    def place(self) -> Place:
        """Where evaluations run, as plain data for the code that makes jobs."""
        return Place(
            sandbox=self.template.backend.name,
            data=str(self.template.data),
            expected=self.expected,
            hardware=conditions.hardware(self.template.gpus),
            versions=conditions.versions(),
        )

    def check(self, job: JobSpec) -> None:
        """Raise ConfigError where a job expects another task, data, scorer, key or image."""
        if wrong := differing(dict(job.expected), dict(self.expected)):
            raise ConfigError(
                f"The evaluation of {job.label} cannot be made here: it would be another question.",
                cause=wrong,
                remedy="the same task, data, harness, key and image as where it was asked",
            )

    def request(self, job: JobSpec, gpus: tuple[str, ...]) -> Request:
        """Return the request to the judge for a job. ``gpus``: UUIDs of leased GPUs."""
        return replace(
            self.template,
            split=job.split,
            files=job.files,
            training_seed=job.training_seed,
            audit_seed=job.audit_seed,
            strict=job.strict,
            gpus=gpus,
        )

    def test(self, say: Callable[[str], None]) -> None:
        """Test the sandbox unless it passed before. Raises what ``self_test.require`` raises."""
        if self.gpus is None:
            self_test.require(self.template, say=say)
        elif not self_test.passed(self.template):
            with self.gpus.lease(1, on_wait=say) as lease:
                self_test.require(replace(self.template, gpus=lease.uuids), say=say)


def find_host(
    asked: Asked | JobSpec,
    *,
    trusted: bool,
    hardware: Mapping[str, str | int] | None,
    progress: Progress,
) -> Host:
    """Find the task that is asked for, choose sandbox and GPUs, and prepare the data.

    ``hardware``: the GPU model to prefer where there are several. Raises ConfigError with a remedy.
    """
    task = find_task(asked.task)
    gpus = _comparable_gpus(task, asked.profile, hardware)
    backend, warning = _sandbox(task, asked.sandbox, trusted=trusted)
    collect()  # leftovers of a killed run take memory: its scratch disk is a tmpfs
    folder, manifest = _prepared(task, asked.profile, asked.data, progress)
    template = Request(
        task=task,
        profile=asked.profile,
        split="search",
        files={},
        data=folder,
        manifest=manifest,
        training_seed=0,
        audit_seed="",
        backend=backend,
        gpus=() if gpus is None else (gpus.gpus[0].uuid,),
    )
    return Host(template, gpus, warning)


def _sandbox(task: Task, name: str, *, trusted: bool) -> tuple[Backend, str | None]:
    """Return the sandbox to use, and a warning or None. Raises ConfigError."""
    if task.runs_code:
        return registry.choose(name, trusted=trusted)
    if name not in (registry.AUTO, NO_SANDBOX.name):
        registry.BACKENDS.find(name)  # a suite may name one for all of its tasks, but no other word
    return NO_SANDBOX, None


def _prepared(
    task: Task, profile: str, data: Mapping[str, str], progress: Progress
) -> tuple[Path, Manifest]:
    try:
        return task.prepare(profile, data_root(), progress, data)
    except OSError as error:
        explained = explain(error)
        raise type(explained)(
            f"The data of {task.name} could not be prepared in {data_root()}.",
            cause=str(error),
            remedy=f"{explained.remedy}; or set HARNESS_DATA to another folder",
        ) from error


def _comparable_gpus(
    task: Task, profile: str, hardware: Mapping[str, str | int] | None
) -> GpuPool | None:
    """Return GPUs of one model, so that scores compare: as ``hardware``, else the commonest model.

    None means the CPU. Raises ConfigError where a GPU is needed and this machine has none.
    """
    device, pool = task.profile(profile).device, GpuPool()
    if device == "cpu" or (device == "any" and not pool.gpus):
        return None
    if not pool.gpus:
        raise ConfigError(
            f"Profile {profile} of {task.name} needs a GPU, and there is none here.",
            cause=pool.reason,
            remedy="--profile smoke, or a machine with a GPU (harness doctor)",
        )
    found = {gpu.uuid: conditions.hardware((gpu.uuid,)) for gpu in pool.gpus}
    models = list(found.values())
    commonest = max(models, key=models.count)
    wanted = hardware if hardware in models else commonest
    return pool.only([uuid for uuid, model in found.items() if model == wanted])
