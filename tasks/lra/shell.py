"""The fixed training shell of the LRA classification tasks.

It runs inside the sandbox, in one process with the submission:

    python -I -B /runner/shell.py /task/config.json

It trains the class in the submission's model.py for ``settings["steps"]`` steps and then answers
the judge's batches through ``candidate.py``, which lies beside it. Nothing it says of itself is
believed. Steps decide, not the clock, so on a CPU a seed decides the result.

The class is ``CustomEncoder``, or, where a row is two documents, ``CustomDualEncoder`` if there
is one: otherwise both documents go through one ``CustomEncoder``, and the shell compares them.

config.json: task, profile, variant, seed, settings, shape {length, vocabulary, classes, and where
it is so documents: 2, padded: 0}, cpus, device ("cpu" or "cuda"), max_parameters (or null), paths
{train, submission, socket, scratch}. ``settings["seq_len"]``, where it is set, cuts each document.
"""

import gc
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

    Predict = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]

CLASS, DUAL_CLASS = "CustomEncoder", "CustomDualEncoder"
BETA1 = 0.9
CHECK_EVERY = 10
"""Steps between two looks at the loss: each look makes a GPU wait."""

Config = dict[str, Any]
Places = dict[tuple[int, tuple[int, ...]], tuple[int, int]]


class Link(Protocol):
    """What this file uses of candidate.py's Link."""

    def progress(self, step: int, total: int, loss: float) -> None: ...
    def fail(self, kind: str, text: str) -> None: ...
    def serve(self, predict: "Predict", *, claim: dict[str, Any]) -> None: ...


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
    predict, claim = trained(config, link)
    link.serve(predict, claim=claim)


def trained(config: Config, link: Link | None = None) -> tuple["Predict", dict[str, Any]]:
    """Train the submission; return what answers rows with logits, and what it says of itself.

    Of ``paths`` in the config, ``train`` and ``submission`` are used.
    """
    import numpy as np
    import torch

    device = torch.device(config["device"])
    prepare_torch(config["seed"], config["cpus"], device)
    train = Path(config["paths"]["train"])
    tokens = torch.from_numpy(np.load(train / "tokens.npy")).to(device)
    labels = torch.from_numpy(np.load(train / "labels.npy")).to(device)

    reader = Reader(config)
    others = floating_tensors()
    model = load_model(config).to(device)
    first = tokens[: config["settings"]["batch_size"]]
    probe(model, reader, first, config["shape"]["classes"])
    count_parameters(model, config.get("max_parameters"))

    began = time.monotonic()
    final_loss = train_model(model, tokens, labels, config, link)
    train_seconds = round(time.monotonic() - began, 3)
    model.eval()
    aside = kept_aside(model, reader.arguments(first[:1]), others)
    claim = {
        # Once more: what was made while training counts as well.
        "parameters": count_parameters(model, config.get("max_parameters"), aside),
        "steps": config["settings"]["steps"],
        "final_loss": final_loss,
        "train_seconds": train_seconds,
    }
    del tokens, labels, first  # their room may be needed to answer

    def predict(rows: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        # In full precision even on a GPU: bf16 kernels differ with the batch size by more than
        # the judge's audits allow.
        with torch.inference_mode():
            logits = model(*reader.arguments(torch.from_numpy(rows).to(device)))
            check_logits(logits, len(rows), config["shape"]["classes"])
            answer: np.ndarray[Any, Any] = logits.float().cpu().numpy()
        return answer

    return predict, claim


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


def load_model(config: Config) -> "torch.nn.Module":
    """Import model.py and build what the task asks for."""
    module = import_submission(Path(config["paths"]["submission"]))
    if config["shape"].get("documents", 1) == 1:
        return build(find_class(module, CLASS), CLASS, config)
    if hasattr(module, DUAL_CLASS):
        return build(find_class(module, DUAL_CLASS), DUAL_CLASS, config)
    return compare(find_class(module, CLASS), config)


def import_submission(submission: Path) -> object:
    """Import model.py."""
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
    return module


def find_class(module: object, name: str) -> type["torch.nn.Module"]:
    """Return the class of that name in model.py."""
    import torch

    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise Refused("interface_error", f"model.py has no class {name}(torch.nn.Module).")
    return found


def build(
    encoder: type["torch.nn.Module"], name: str, config: Config, *, classes: int | None = None
) -> "torch.nn.Module":
    """Call the constructor, after a look at whether it and ``forward`` can be called as agreed."""
    settings, shape = config["settings"], config["shape"]
    sizes = {k: settings[k] for k in ("dim", "depth", "heads", "mlp_dim", "dropout")}
    arguments = {
        "length": min(shape["length"], settings.get("seq_len", shape["length"])),
        "vocabulary": shape["vocabulary"],
        "classes": classes or shape["classes"],
        **sizes,
    }
    try:
        inspect.signature(encoder).bind(**arguments)
    except TypeError as error:
        wanted = ", ".join(arguments)
        raise Refused("interface_error", f"{name}(*, {wanted}) cannot be called: {error}") from None
    model = encoder(**arguments)
    given: tuple[str, ...] = ("tokens", "mask")
    if name == DUAL_CLASS:
        given = ("tokens_a", "mask_a", "tokens_b", "mask_b")
    try:
        inspect.signature(model.forward).bind(*given)
    except TypeError as error:
        raise Refused(
            "interface_error", f"forward({', '.join(given)}) cannot be called: {error}"
        ) from None
    return model


def compare(encoder: type["torch.nn.Module"], config: Config) -> "torch.nn.Module":
    """Return two towers that share one encoder, and a head that compares what they say.

    The encoder's ``classes`` are ``dim`` features of a document. The head is Long Range Arena's,
    on the features [a, b, a*b, a-b] of its paper; its code's default is [a, b] alone.
    """
    import torch
    from torch import nn

    dim, hidden = config["settings"]["dim"], config["settings"]["mlp_dim"]
    classes = config["shape"]["classes"]

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = build(encoder, CLASS, config, classes=dim)
            self.head = nn.Sequential(
                nn.Linear(4 * dim, hidden), nn.ReLU(),
                nn.Linear(hidden, max(1, hidden // 2)), nn.ReLU(),
                nn.Linear(max(1, hidden // 2), classes),
            )  # fmt: skip

        def forward(
            self,
            tokens_a: torch.Tensor,
            mask_a: torch.Tensor,
            tokens_b: torch.Tensor,
            mask_b: torch.Tensor,
        ) -> torch.Tensor:
            # In one call, for a batch twice as large costs a GPU less than two batches.
            both = self.encoder(torch.cat((tokens_a, tokens_b)), torch.cat((mask_a, mask_b)))
            check_shape(both, 2 * len(tokens_a), dim)
            a, b = both.chunk(2)
            logits: torch.Tensor = self.head(torch.cat((a, b, a * b, a - b), dim=1))
            return logits

    return Pair()


class Reader:
    """Turns stored rows into what ``forward`` is given; costs nothing on the host."""

    def __init__(self, config: Config) -> None:
        shape = config["shape"]
        self.length = shape["length"]
        self.cut = min(self.length, config["settings"].get("seq_len", self.length))
        self.documents = shape.get("documents", 1)
        self.padded = bool(shape.get("padded", 1))

    def arguments(self, rows: "torch.Tensor") -> list["torch.Tensor"]:
        """Return tokens and mask, (rows, length), of each document; the mask is True on tokens."""
        import torch

        given = []
        for document in range(self.documents):
            start = document * self.length
            tokens = rows[:, start : start + self.cut]
            # Where no id means padding, 0 is a pixel like any other.
            mask = tokens != 0 if self.padded else torch.ones_like(tokens, dtype=torch.bool)
            given += [tokens.long(), mask]
        return given


def probe(model: "torch.nn.Module", reader: Reader, first: "torch.Tensor", classes: int) -> None:
    """Look at what the model makes of the first rows, before it is trained.

    Before the optimizer is made, for lazy layers get their parameters in the first call. A row
    alone is only ever answered: in training, BatchNorm has no use for one.
    """
    import torch

    for batch, training in ((first, True), (first[:1], False)):
        model.train(training)
        with torch.no_grad():
            check_logits(model(*reader.arguments(batch)), len(batch), classes)


def check_logits(logits: object, rows: int, classes: int) -> None:
    """Raise Refused unless ``logits`` is finite, floating and (rows, classes)."""
    import torch

    if not bool(torch.isfinite(check_shape(logits, rows, classes)).all()):
        raise Refused("not_finite", "forward returned logits that are NaN or infinite.")


def check_shape(logits: object, rows: int, classes: int) -> "torch.Tensor":
    """Return ``logits``. Raises Refused unless it is floating and (rows, classes)."""
    import torch

    wanted = f"a floating tensor of shape ({rows}, {classes})"
    if not isinstance(logits, torch.Tensor):
        raise Refused("wrong_shape", f"forward returned {type(logits).__name__}, not {wanted}.")
    if tuple(logits.shape) != (rows, classes) or not logits.is_floating_point():
        found = f"{logits.dtype} {tuple(logits.shape)}"
        raise Refused("wrong_shape", f"forward returned {found}, not {wanted}.")
    return logits


def count_parameters(model: "torch.nn.Module", limit: int | None, aside: int = 0) -> int:
    """Return how many numbers the model holds: parameters, buffers, and what is kept ``aside``.

    Raises Refused above ``limit``.
    """
    count = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers())) + aside
    if limit is not None and count > limit:
        where = f" ({aside:,} in tensors that no module holds)" if aside else ""
        raise Refused(
            "too_large", f"The model has {count:,} parameters{where}; {limit:,} are allowed."
        )
    return count


def kept_aside(model: "torch.nn.Module", rows: list["torch.Tensor"], others: Places) -> int:
    """Return how many floating numbers lie in tensors that no module holds, and stay there.

    A list, a closure or a global can hold weights, too. What a call leaves behind for the next one
    to replace is none, so ``rows`` are asked in between. To be called after training, when of
    what the shell made nothing is left but the ``others``, which were there before the model.
    """
    import torch

    held = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    before = floating_tensors()
    with torch.inference_mode():
        model(*rows)
    kept = (floating_tensors().items() & before.items()) - others.items()
    return sum({place: size for _, (place, size) in kept if place not in held}.values())


def floating_tensors() -> Places:
    """Return the leaf tensors alive: (id, shape) → (address, numbers there)."""
    import torch

    def room(tensor: torch.Tensor) -> tuple[int, int]:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes() // tensor.itemsize

    gc.collect()
    return {
        (id(t), tuple(t.shape)): room(t)
        for t in gc.get_objects()
        if issubclass(type(t), torch.Tensor) and t.is_floating_point() and t.grad_fn is None
        # The compiler's stand-ins for tensors have sizes and no memory.
        if not type(t).__module__.startswith("torch._subclasses")
    }


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

    settings, device, reader = config["settings"], tokens.device, Reader(config)
    learned = [p for p in model.parameters() if p.requires_grad]
    if not learned:
        raise Refused("interface_error", "The model has no parameters to train.")
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
            # A whole pass goes to the device at once: a copy in every step would make it wait.
            queue = torch.randperm(len(labels), generator=shuffle).to(device)
        index, queue = queue[:size], queue[size:]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(*reader.arguments(tokens.index_select(0, index)))
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
