"""Runs a submission of the Autoresearch task: train.py as a program, from its first line.

It runs inside the sandbox, in one process with the submission:

    python -I -B /runner/runner.py /task/config.json

It connects to the judge before any of the submission's code, gives the link to ``prepare``, and
runs train.py as ``__main__``. The script trains as it likes; ``prepare.evaluate_bpb`` is where it
serves. Nothing said in this process is believed, and the judge keeps the time.

config.json: task, profile, seed, settings {time_budget, max_batch}, shape {length, vocabulary,
bos}, cpus, device ("cpu" or "cuda"), paths {train, submission, socket, scratch}.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I leaves it out

import prepare  # type: ignore[import-not-found]  # mounted beside this file

SCRIPT = "train.py"
NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA error: out of memory")
"""How torch says it without raising an OutOfMemoryError."""


def main(path: str) -> int:
    """Run the submission; return 0, or 1 after telling the judge why it was not served."""
    import candidate  # type: ignore[import-not-found]  # mounted beside this file

    config: dict[str, Any] = json.loads(Path(path).read_text())
    link = candidate.Link.connect(config["paths"]["socket"])
    prepare.connect(config, link)
    set_environment(config)
    submission = Path(config["paths"]["submission"])
    raised = run(submission / SCRIPT)
    if prepare.served():
        return 0 if raised is None else 1
    link.fail(*explain(prepare.failure() or raised, submission))
    return 1


def set_environment(config: dict[str, Any]) -> None:
    """Set what a submission finds in its environment."""
    os.environ["SEED"] = str(config["seed"])
    # Threads that spin while they wait stop each other on a busy machine: measured on two cores
    # with twice their load, 2 training steps in the time of 9.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Compilers may keep what they like where it ends with the sandbox.
    scratch = Path(config["paths"]["scratch"])
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(scratch / "triton"))


def run(script: Path) -> BaseException | None:
    """Run ``script`` as ``__main__``; return what it raised, or None if it ran to its end."""
    sys.argv = [str(script)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error if error.code not in (None, 0) else None
    except BaseException as error:  # noqa: BLE001  # whatever it raises is its own failure
        traceback.print_exc()
        return error
    return None


def explain(error: BaseException | None, submission: Path) -> tuple[str, str]:
    """Return the kind of a failure, and a text that shows the submission's own lines only."""
    if error is None:
        return "interface_error", f"{SCRIPT} ended without calling evaluate_bpb."
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(submission)]
    lines = traceback.StackSummary.from_list(own).format()
    match error:
        case prepare.Refused():
            kind, lines = error.kind, [f"{error}\n", *lines]
        case SystemExit():
            kind = "runtime_error"
            lines = [f"{SCRIPT} exited ({error.code}) before it called evaluate_bpb.\n", *lines]
        case _:
            kind = kind_of(error, submission)
            lines += traceback.format_exception_only(error)
    return kind, "".join(lines).replace(f"{submission}/", "").strip()


def kind_of(error: BaseException, submission: Path) -> str:
    """Return the kind of an exception that Python or torch raised. Kinds: scorers.score."""
    torch = sys.modules.get("torch")
    no_memory = (MemoryError, torch.OutOfMemoryError) if torch else (MemoryError,)
    if isinstance(error, no_memory) or any(text in str(error) for text in NO_MEMORY):
        return "out_of_memory"
    if isinstance(error, SyntaxError) and Path(str(error.filename)).is_relative_to(submission):
        return "syntax_error"
    return "import_error" if isinstance(error, ImportError) else "runtime_error"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
