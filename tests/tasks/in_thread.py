"""Evaluates a submission from request to score; the shell may run in a thread of this process.

A separate process needs seconds of imports before it does anything. Nothing is isolated here.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from judging import limited
from shell_here import few_objects, no_trace

from sandboxes.base import Backend, ExecResult, Probe, SandboxSpec
from scorers.candidate import candidate
from scorers.evaluate import evaluate
from scorers.request import Request
from scorers.score import Score
from tasks.lra import shell
from tasks.spec import Task

PATIENCE_S = 200


def evaluated(
    task: Task, root: Path, source: str, backend: Backend, split: Literal["search", "test"]
) -> Score:
    """Score a model.py at the profile ``test``, with time limits that suit a slow machine."""
    task = limited(task, "test", {"train_s": PATIENCE_S, "serve_s": PATIENCE_S})
    data, manifest = task.prepare("test", root, lambda *_: None)
    files = {"model.py": source}
    return evaluate(Request(task, "test", split, files, data, manifest, 3, "a1b2", backend)).score


class InThread:
    """A backend without isolation, which can run only the shell of Long Range Arena."""

    name, isolates, image = "thread", False, ""

    def probe(self) -> Probe:
        return Probe(True, "a thread")

    def unenforced(self, spec: SandboxSpec) -> tuple[str, ...]:
        return ()

    @contextlib.contextmanager
    def open(self, spec: SandboxSpec) -> Iterator["Room"]:
        with few_objects(), no_trace():
            yield Room(spec)


class Room:
    """The open "sandbox": maps mounted paths to host paths, and starts the thread."""

    python = sys.executable

    def __init__(self, spec: SandboxSpec) -> None:
        self._mounts = {mount.target: mount.source for mount in spec.mounts}

    def inside(self, target: str) -> str:
        path = Path(target)
        for mounted in (path, *path.parents):
            if str(mounted) in self._mounts:
                return str(self._mounts[str(mounted)] / path.relative_to(mounted))
        return target

    def start(self, argv: Sequence[str], **_: Any) -> "Running":
        assert Path(argv[-2]).read_text() == Path(shell.__file__).read_text()
        return Running(argv[-1])


class Running:
    """The shell, running in a thread."""

    def __init__(self, config: str) -> None:
        self._code = 0
        self._thread = threading.Thread(target=self._run, args=(config,), daemon=True)
        self._thread.start()

    def _run(self, config: str) -> None:
        """Do as ``shell.main`` does; also close the socket, as the end of a process would."""
        told = json.loads(Path(config).read_text())
        link = candidate.Link.connect(told["paths"]["socket"])
        with link._sock:
            try:
                shell.train_and_serve(told, link)
            except BaseException as error:
                self._code = 1
                link.fail(*shell.explain(error, Path(told["paths"]["submission"])))

    def poll(self) -> bool:
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Do nothing: the thread ends by itself once the judge has closed the connection."""

    def wait(self, timeout: float | None = None) -> ExecResult:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the shell goes on and on"
        return ExecResult(self._code, "exited", b"", b"", 0, 0.0)
