"""Tests what the shell gives a model, what it counts, and what it refuses, in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shell_here import no_trace

from tasks.lra import shell

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("_few_objects")

SETTINGS: dict[str, Any] = {
    "batch_size": 8, "steps": 3, "learning_rate": 1e-3, "weight_decay": 0.0, "warmup": 1,
    "schedule": "cosine", "beta2": 0.98, "grad_clip": 1.0, "dim": 4, "depth": 1, "heads": 1,
    "mlp_dim": 6, "dropout": 0.0,
}  # fmt: skip

HEAD = """
import torch
from torch import nn

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.table = nn.Embedding(vocabulary, classes)
        self.seen = []
"""
PLAIN = (
    HEAD
    + """
    def forward(self, tokens, mask):
        self.seen.append((tokens.clone(), mask.clone()))
        return (self.table(tokens) * mask[..., None]).sum(1) / 9
"""
)
QUIET = (
    HEAD
    + """
        EXTRA
    def forward(self, tokens, mask):
        LATE
        return self.table(tokens).mean(1)
"""
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a function that writes a submission with data and returns the shell's config."""
    # Only the seed: the shell's other switches would stay on in this process.
    monkeypatch.setattr(shell, "prepare_torch", lambda seed, *_: torch.manual_seed(seed))

    def make(source: str, shape: dict[str, int], *, cap: int | None = None, **more: Any) -> Any:
        (tmp_path / "model.py").write_text(source)
        rng = np.random.default_rng(0)
        width = shape["length"] * shape.get("documents", 1)
        tokens = rng.integers(1, shape["vocabulary"], (40, width))
        tokens[:, shape["length"] - 2 : shape["length"]] = 0
        kind = np.uint8 if shape["vocabulary"] <= 256 else np.int16
        np.save(tmp_path / "tokens.npy", tokens.astype(kind))
        np.save(tmp_path / "labels.npy", rng.integers(0, shape["classes"], 40).astype(np.uint8))
        return {
            "seed": 1, "settings": {**SETTINGS, **more}, "shape": shape, "cpus": 1,
            "device": "cpu", "max_parameters": cap,
            "paths": {"train": str(tmp_path), "submission": str(tmp_path)},
        }  # fmt: skip

    with no_trace():
        yield make


def seen_by(config: Any) -> tuple[Any, Any]:
    """Return tokens and mask of the last training batch of a PLAIN model."""
    model = shell.load_model(config)
    train = Path(config["paths"]["train"])
    tokens = torch.from_numpy(np.load(train / "tokens.npy"))
    labels = torch.from_numpy(np.load(train / "labels.npy"))
    shell.train_model(model, tokens, labels, config)
    encoder = getattr(model, "encoder", model)
    found: tuple[Any, Any] = encoder.seen[-1]
    return found


def test_padding_is_masked_and_bytes_above_255_survive(config: Any) -> None:
    tokens, mask = seen_by(config(PLAIN, {"length": 7, "vocabulary": 300, "classes": 3}))
    assert tokens.shape == mask.shape == (8, 7)
    assert tokens.dtype == torch.int64
    assert tokens.max() > 255
    assert (mask == (tokens != 0)).all()
    assert not mask[:, -2:].any()


def test_black_pixels_are_not_padding(config: Any) -> None:
    shape = {"length": 9, "vocabulary": 256, "classes": 10, "padded": 0}
    tokens, mask = seen_by(config(PLAIN, shape))
    assert (tokens == 0).any()
    assert mask.all()


def test_two_documents_go_through_one_encoder_cut_to_its_length(config: Any) -> None:
    shape = {"length": 7, "vocabulary": 257, "classes": 2, "documents": 2}
    made = config(PLAIN, shape, seq_len=5)
    tokens, mask = seen_by(made)
    assert tokens.shape == mask.shape == (16, 5)
    both = np.load(Path(made["paths"]["train"]) / "tokens.npy").reshape(-1, 7)
    stored = {row[:5].tobytes() for row in both.astype(np.int64)}
    assert all(row.numpy().tobytes() in stored for row in tokens)


def test_what_is_served_does_not_depend_on_who_else_is_asked(config: Any) -> None:
    shape = {"length": 7, "vocabulary": 257, "classes": 2, "documents": 2}
    made = config(QUIET.replace("EXTRA", "").replace("LATE", "pass"), shape)
    predict, claim = shell.trained(made)
    rows = np.load(Path(made["paths"]["train"]) / "tokens.npy").astype(np.int32)
    together = predict(rows)
    assert together.shape == (40, 2)
    assert np.allclose(predict(rows[3:4]), together[3:4], atol=1e-6)
    # The embedding with 4 features, and the head on [a, b, a*b, a-b], which compares documents.
    assert claim["parameters"] == 257 * 4 + 16 * 6 + 6 + 6 * 3 + 3 + 3 * 2 + 2


HIDING_PLACES = {
    "parameter": ("self.w = nn.Parameter(torch.zeros(1000))", "pass"),
    "buffer": ("self.register_buffer('w', torch.zeros(1000))", "pass"),
    "attribute": ("self.w = torch.zeros(1000)", "pass"),
    "list in a dictionary": ("self.w = {'a': [torch.zeros(1000)]}", "pass"),
    "module in a list": ("self.w = [nn.Linear(10, 100, bias=False)]", "pass"),
    "global": ("global W; W = torch.zeros(1000)", "pass"),
    "closure": ("w = torch.zeros(1000); self.f = lambda: w", "pass"),
    "late parameter": (
        "self.n = 0",
        "self.n += 1; self.w = nn.Parameter(torch.zeros(1000)) if self.n > 3 else None",
    ),
    "late buffer": (
        "self.n = 0; self.register_buffer('w', torch.zeros(1))",
        "self.n += 1; self.w = torch.zeros(1000 if self.n > 3 else 1)",
    ),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_weights_count_wherever_and_whenever_they_are_made(config: Any, place: str) -> None:
    extra, late = HIDING_PLACES[place]
    shape = {"length": 7, "vocabulary": 16, "classes": 10}
    source = QUIET.replace("EXTRA", extra).replace("LATE", late)
    with pytest.raises(shell.Refused, match=r"1,1\d\d parameters.*; 1,000 are allowed"):
        shell.trained(config(source, shape, cap=1000))
    assert shell.trained(config(source, shape, cap=1200))[1]["steps"] == 3


def test_what_a_forward_pass_leaves_behind_is_no_parameter(config: Any) -> None:
    late = "self.map = self.table(tokens) @ self.table.weight.t(); self.mask = mask.float()"
    source = QUIET.replace("EXTRA", "").replace("LATE", late)
    shape = {"length": 7, "vocabulary": 16, "classes": 10}
    assert shell.trained(config(source, shape, cap=160))[1]["parameters"] == 160


def test_shared_weights_count_once(config: Any) -> None:
    extra = "self.again = self.table; self.weight = self.table.weight"
    source = QUIET.replace("EXTRA", extra).replace("LATE", "pass")
    shape = {"length": 7, "vocabulary": 16, "classes": 10}
    assert shell.trained(config(source, shape, cap=160))[1]["parameters"] == 160


def test_every_row_is_trained_on_once_before_any_is_again(config: Any) -> None:
    made = config(PLAIN, {"length": 7, "vocabulary": 300, "classes": 3}, steps=10)
    made["shape"]["length"] = 7
    model = shell.load_model(made)
    train = Path(made["paths"]["train"])
    tokens = torch.arange(40).repeat_interleave(7).reshape(40, 7) + 1
    labels = torch.from_numpy(np.load(train / "labels.npy"))
    shell.train_model(model, tokens, labels, made)
    order = [int(row[0]) for batch, _ in model.seen for row in batch]
    assert sorted(order[:40]) == sorted(order[40:80]) == list(range(1, 41))
    assert order[:40] != order[40:]


def test_a_dual_encoder_goes_before_a_single_one_and_must_take_four_tensors(config: Any) -> None:
    shape = {"length": 7, "vocabulary": 257, "classes": 2, "documents": 2}
    dual = PLAIN + "\nclass CustomDualEncoder(CustomEncoder):\n    pass\n"
    with pytest.raises(shell.Refused, match="tokens_a, mask_a, tokens_b, mask_b"):
        shell.load_model(config(dual, shape))
    # Where a row is one document, the shell ignores a CustomDualEncoder.
    shape = {"length": 7, "vocabulary": 257, "classes": 2}
    assert type(shell.load_model(config(dual, shape))).__name__ == "CustomEncoder"
