"""A trained model as one file, and the program that serves it in a process of its own.

    python -I -B -u /runner/frozen.py /task/config.json

``freeze`` runs beside the submission, before it has seen any of the judge's rows: torch.export
turns the model into a graph of tensor operations with its weights. ``main`` runs in a fresh sandbox
that holds this file and the frozen one, and nothing of the submission: no script, no memory, no
training data. Several such processes, each shown other rows, cannot tell each other what they saw.

What torch.export cannot trace cannot be frozen: counting in dictionaries, numpy, data-dependent
branches. The score then says that the strict check was unavailable, and why.
"""

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I leaves it out

if TYPE_CHECKING:
    import torch


class NotFrozen(Exception):
    """The model cannot be exported; the text says why in a line."""


def freeze(model: Any, shape: tuple[int, int], device: str) -> bytes:  # noqa: ANN401
    """Return ``model`` as a file: the exported program for int64 (rows, length) on ``device``.

    Autocast stays as it is set around the call. Raises NotFrozen.
    """
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # What torch.compile returned is traced anew, without the compiler in between.
            self.model = getattr(model, "_orig_mod", model)
            self.kind = torch.device(device).type
            self.enabled = torch.is_autocast_enabled(self.kind)
            self.dtype = torch.get_autocast_dtype(self.kind)

        def forward(self, x: "torch.Tensor") -> Any:  # noqa: ANN401
            with torch.autocast(self.kind, self.dtype, enabled=self.enabled):
                return self.model(x)

    try:
        with torch.no_grad():
            x = torch.zeros(shape, dtype=torch.long, device=device)
            program = torch.export.export(Wrapped(), (x,), strict=False)
        file = io.BytesIO()
        torch.export.save(program, file)
    except Exception as error:  # torch.export fails in many ways
        line = next(iter(str(error).strip().splitlines()), "")
        raise NotFrozen(f"{type(error).__name__}: {line}"[:300]) from error
    return file.getvalue()


def main(path: str) -> int:
    """Serve the frozen model to the judge."""
    import candidate  # type: ignore[import-not-found]  # mounted beside this file
    import prepare  # type: ignore[import-not-found]
    import torch

    config: dict[str, Any] = json.loads(Path(path).read_text())
    link = candidate.Link.connect(config["paths"]["socket"])
    try:
        program = torch.export.load(config["paths"]["frozen"])
        model: Any = program.module()
        if config["device"] != "cpu":
            model = torch.compile(model, dynamic=False)
        predict = prepare.Predict(model, int(config["batch_size"]), config)
        link.serve(predict, claim={"batch_size": predict.rows, **predict.claim})
    except Exception as error:
        link.fail("runtime_error", f"the frozen model: {type(error).__name__}: {error}"[:2000])
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
