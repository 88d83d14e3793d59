"""The fixed training shell of the LRA classification tasks.

It runs inside the sandbox, in one process with the submission:

    python -I -B /runner/shell.py /task/config.json

It trains ``CustomEncoder`` of the submission's model.py for ``settings["steps"]`` steps and then
answers the judge's batches through ``candidate.py``, which lies beside it. Nothing it says of
itself is believed. Steps decide, not the clock, so on a CPU a seed decides the result.

config.json: task, profile, variant, seed, settings, shape {length, vocabulary, classes}, cpus,
device ("cpu" or "cuda"), max_parameters (or null), paths {train, submission, socket, scratch}.
"""

import importlib.util
import inspect
import json
import math
import random
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I leaves it out

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch

CLASS = "CustomEncoder"
BETA1 = 0.9
CHECK_EVERY = 10
"""Steps between two looks at the loss: each look makes a GPU wait."""

Config = dict[str, Any]


class Link(Protocol):
    """What this file uses of candidate.py's Link."""

    def progress(self, step: int, total: int, loss: float) -> None: ...
    def fail(self, kind: str, text: str) -> None: ...
    def serve(
        self,
        predict: "Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]",
        *,
        claim: dict[str, Any],
    ) -> None: ...


class Refused(Exception):
    """The submission breaks the contract in a way that the shell can name."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def main(path: str) -> int:
    """Train and serve; return 0, or 1 after telling the judge why not."""
    import candidate  # type: ignore[import-not-found]  # mounted beside this file

    config: Config = json.loads(Path(path).read_text())
    link: Link = candidate.Link.connect(config["paths"]["socket"])
    try:
        train_and_serve(config, link)
    except BaseException as error:  # noqa: BLE001  # a submission may raise SystemExit, too
        traceback.print_exc()
        kind, text = explain(error, Path(config["paths"]["submission"]))
        link.fail(kind, text)
        return 1
    return 0


def train_and_serve(config: Config, link: Link) -> None:
    """Do all the work; whatever is wrong with the submission comes out as an exception."""
    import numpy as np
    import torch

    device = torch.device(config["device"])
    prepare_torch(config["seed"], config["cpus"], device)
    train = Path(config["paths"]["train"])
    tokens = torch.from_numpy(np.load(train / "tokens.npy")).to(device)
    labels = torch.from_numpy(np.load(train / "labels.npy")).to(device)

    model = build(load_class(Path(config["paths"]["submission"])), config).to(device)
    # Before the optimizer is made, for lazy layers get their parameters in the first call.
    first = tokens[: config["settings"]["batch_size"]]
    for batch in (first, first[:1]):
        with torch.no_grad():
            check_logits(forward(model, batch), len(batch), config["shape"]["classes"])
    count_parameters(model, config.get("max_parameters"))

    began = time.monotonic()
    final_loss = train_model(model, tokens, labels, config, link)
    claim = {
        "parameters": count_parameters(model, config.get("max_parameters")),
        "steps": config["settings"]["steps"],
        "final_loss": final_loss,
        "train_seconds": round(time.monotonic() - began, 3),
    }
    model.eval()

    def predict(rows: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        # In full precision even on a GPU: bf16 kernels differ with the batch size by more than
        # the judge's audits allow.
        with torch.inference_mode():
            logits = forward(model, torch.from_numpy(rows).to(device))
            check_logits(logits, len(rows), config["shape"]["classes"])
            answer: np.ndarray[Any, Any] = logits.float().cpu().numpy()
        return answer

    link.serve(predict, claim=claim)


def prepare_torch(seed: int, cpus: int, device: "torch.device") -> None:
    """Seed everything; on a CPU, make every operation repeatable."""
    import numpy as np
    import torch

    torch.set_num_threads(cpus)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)


def load_class(submission: Path) -> type["torch.nn.Module"]:
    """Import model.py and return its class."""
    import torch

    spec = importlib.util.spec_from_file_location("model", submission / "model.py")
    if spec is None or spec.loader is None:
        raise Refused("import_error", "There is no model.py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise Refused("syntax_error", "model.py cannot be parsed.") from error
    except Exception as error:
        raise Refused("import_error", "model.py cannot be imported.") from error
    found = getattr(module, CLASS, None)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise Refused("interface_error", f"model.py has no class {CLASS}(torch.nn.Module).")
    return found


def build(encoder: type["torch.nn.Module"], config: Config) -> "torch.nn.Module":
    """Call the constructor, after a look at whether it and ``forward`` can be called as agreed."""
    sizes = {k: config["settings"][k] for k in ("dim", "depth", "heads", "mlp_dim", "dropout")}
    arguments = {**config["shape"], **sizes}
    try:
        inspect.signature(encoder).bind(**arguments)
    except TypeError as error:
        wanted = ", ".join(arguments)
        raise Refused(
            "interface_error", f"{CLASS}(*, {wanted}) cannot be called: {error}"
        ) from None
    model = encoder(**arguments)
    try:
        inspect.signature(model.forward).bind(None, None)
    except TypeError as error:
        raise Refused(
            "interface_error", f"forward(tokens, mask) cannot be called: {error}"
        ) from None
    return model


def forward(model: "torch.nn.Module", rows: "torch.Tensor") -> "torch.Tensor":
    """Call the model on token ids (rows, length); the mask is True on real tokens."""
    logits: torch.Tensor = model(rows.long(), rows != 0)
    return logits


def check_logits(logits: object, rows: int, classes: int) -> None:
    """Raise Refused unless ``logits`` is finite, floating and (rows, classes)."""
    import torch

    wanted = f"a floating tensor of shape ({rows}, {classes})"
    if not isinstance(logits, torch.Tensor):
        raise Refused("wrong_shape", f"forward returned {type(logits).__name__}, not {wanted}.")
    if tuple(logits.shape) != (rows, classes) or not logits.is_floating_point():
        found = f"{logits.dtype} {tuple(logits.shape)}"
        raise Refused("wrong_shape", f"forward returned {found}, not {wanted}.")
    if not bool(torch.isfinite(logits).all()):
        raise Refused("not_finite", "forward returned logits that are NaN or infinite.")


def count_parameters(model: "torch.nn.Module", limit: int | None) -> int:
    """Return the numbers the model holds, buffers included. Raises Refused above ``limit``."""
    tensors = [*model.parameters(), *model.buffers()]
    count = sum(tensor.numel() for tensor in tensors)
    if limit is not None and count > limit:
        raise Refused("too_large", f"The model has {count:,} parameters; {limit:,} are allowed.")
    return count


def train_model(
    model: "torch.nn.Module",
    tokens: "torch.Tensor",
    labels: "torch.Tensor",
    config: Config,
    link: Link | None = None,
) -> float:
    """Train for as many steps as the settings say; return the last loss looked at."""
    import torch
    from schedule import learning_rate  # type: ignore[import-not-found]

    settings, device = config["settings"], tokens.device
    learned = [p for p in model.parameters() if p.requires_grad]
    if not learned:
        raise Refused("interface_error", f"{CLASS} has no parameters to train.")
    # Biases and gains are not decayed: nothing should pull them towards 0.
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (BETA1, settings["beta2"])
    optimizer = torch.optim.AdamW(groups, betas=betas, fused=device.type == "cuda")

    # Of its own, so that the order of the rows is the same whatever the submission draws.
    shuffle = torch.Generator().manual_seed(config["seed"])
    steps, size = settings["steps"], min(settings["batch_size"], len(labels))
    queue = torch.empty(0, dtype=torch.long)
    model.train()
    value = math.nan
    for step in range(1, steps + 1):
        if len(queue) < size:
            queue = torch.randperm(len(labels), generator=shuffle)
        index, queue = queue[:size].to(device), queue[size:]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = forward(model, tokens.index_select(0, index))
        target = labels.index_select(0, index).long()
        loss = torch.nn.functional.cross_entropy(logits.float(), target)
        loss.backward()  # type: ignore[no-untyped-call]
        if settings["grad_clip"] > 0:
            torch.nn.utils.clip_grad_norm_(learned, settings["grad_clip"])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step - 1, settings)
        optimizer.step()
        optimizer.zero_grad()
        if step % CHECK_EVERY == 0 or step in (1, steps):
            value = loss.item()
            if not math.isfinite(value):
                raise Refused("not_finite", f"The loss is {value} at step {step} of {steps}.")
            if link is not None:
                link.progress(step, steps, value)
    return value


def explain(error: BaseException, submission: Path) -> tuple[str, str]:
    """Return the kind of a failure, and a text that shows the submission's own lines only."""
    import torch

    kind, cause = "runtime_error", error
    if isinstance(error, Refused):
        kind, cause = error.kind, error.__cause__ or error
    no_memory = "can't allocate memory" in str(error) or "not enough memory" in str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or no_memory:
        kind = "out_of_memory"
    frames = traceback.extract_tb(cause.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(submission)]
    lines = traceback.format_list(own) + traceback.format_exception_only(cause)
    if isinstance(error, Refused):
        lines = [f"{error}\n"] + (lines if cause is not error else [])
    return kind, "".join(lines).replace(f"{submission}/", "").strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
