"""Tests every design of the gallery as a whole model: what the shell and the judge require of it.

The mechanisms alone are tested in test_designs_core.py, the kernels in test_designs_kernels.py.
"""

import ast
import importlib
import runpy
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from mechanisms import encoder
from torch import Tensor

from harness.base.errors import ConfigError
from tasks.lra import gallery
from tasks.lra.gallery import load
from tasks.spec import Task, find_task

ALLOWED = {"torch", "triton", "numpy", "einops", *sys.stdlib_module_names}
# dim, depth, heads, mlp_dim and length of the published base models. A design of these sizes may
# have 10 % more parameters than the softmax Transformer with learned positions; buffers count.
PUBLISHED = {
    "listops": (512, 4, 8, 1024, 2000),
    "text": (256, 4, 4, 1024, 4096),
    "retrieval": (128, 4, 4, 512, 4096),
    "image": (128, 1, 8, 128, 1024),
    "pathfinder": (32, 4, 4, 32, 1024),
    "pathx": (32, 1, 2, 32, 16384),
}
KERNELS = ("sliding_window", "linear_attention", "gated_recurrence")
each = pytest.mark.parametrize("name", gallery.NAMES)


@pytest.fixture(autouse=True)
def _deterministic(_one_thread: None) -> Any:
    """As in the shell on a CPU: an operation without a deterministic implementation raises."""
    mode = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    yield
    torch.set_deterministic_debug_mode(mode)


def batch(*reals: int, length: int = 50) -> tuple[Tensor, Tensor]:
    """Return tokens and their mask; row i has ``reals[i]`` ids from 1 to 19, then zeros."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 20, (len(reals), length), generator=generator)
    mask = torch.arange(length) < torch.tensor(reals)[:, None]
    return tokens * mask, mask


def test_the_gallery_is_what_lies_in_its_folder() -> None:
    assert {path.stem for path in gallery.FOLDER.glob("*.py")} == set(gallery.NAMES)
    assert len(gallery.NAMES) >= 11


def test_unknown_mechanism_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'s4d'"):
        gallery.source_of("s4")


@each
def test_source_says_where_it_is_from_and_what_it_costs(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(gallery.source_of(name).read_text()))
    assert docstring is not None
    assert "arXiv" in docstring
    assert "Time O(" in docstring
    assert "emory " in docstring


@each
def test_source_stands_alone(name: str) -> None:
    source = gallery.source_of(name).read_text()
    assert len(source) < 64_000
    roots: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add(str(node.module).split(".")[0])
    assert roots <= ALLOWED


@each
def test_padding_does_not_change_logits(name: str) -> None:
    model = encoder(name).eval()
    tokens, mask = batch(50, 31, 7, 1)
    with torch.inference_mode():
        logits = model(tokens, mask)
        for row, real in enumerate((50, 31, 7, 1)):
            for kept in (real, min(50, real + 3)):
                cut = slice(row, row + 1), slice(0, kept)
                alone = model(tokens[cut], mask[cut])
                torch.testing.assert_close(alone[0], logits[row], rtol=0, atol=2e-5)
        # Nor do the ids in the padding.
        torch.testing.assert_close(model(tokens + 5 * ~mask, mask), logits, rtol=0, atol=2e-6)


def test_padding_does_not_change_logits_along_brackets() -> None:
    """With ListOps' vocabulary size the tree follows brackets, which need not match."""
    model = encoder("tree", vocabulary=16).eval()
    tokens, mask = batch(50, 31, 7, 1)
    tokens = tokens.clamp(max=15)
    with torch.inference_mode():
        logits = model(tokens, mask)
        for row, real in enumerate((50, 31, 7, 1)):
            alone = model(tokens[row : row + 1, :real], mask[row : row + 1, :real])
            torch.testing.assert_close(alone[0], logits[row], rtol=0, atol=2e-5)
        # The tree is that of the brackets: an even tree gives other logits.
        model.bracketed = False
        assert not torch.allclose(model(tokens, mask), logits, atol=1e-3)


@each
def test_a_row_does_not_know_its_company(name: str) -> None:
    model = encoder(name).eval()
    tokens, mask = batch(50, 31, 7, 50, 12)
    with torch.inference_mode():
        logits = model(tokens, mask)
        order = torch.tensor([3, 1, 4, 0, 2])
        torch.testing.assert_close(
            model(tokens[order], mask[order]), logits[order], rtol=0, atol=5e-6
        )
        alone = torch.cat([model(tokens[i : i + 1], mask[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(alone, logits, rtol=0, atol=5e-6)


@each
def test_every_token_and_parameter_matters(name: str) -> None:
    model = encoder(name)
    tokens, mask = batch(40, 40)
    logits = model(tokens, mask)
    others = []
    for place in (0, 1, 20, 39):
        others.append(tokens.clone())
        others[-1][:, place] = tokens[:, place] % 19 + 1
    # The order of the tokens matters too, not only which tokens occur.
    others.append(tokens.flip(1).roll(40 - 50, 1))
    for other in others:
        for row, before in zip(model(other, mask), logits, strict=True):
            assert not torch.allclose(row, before, atol=1e-6)
    logits.square().sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        assert parameter.grad.abs().sum() > 0, label


@each
def test_an_empty_row_gives_finite_logits_and_gradients(name: str) -> None:
    model = encoder(name)
    tokens, mask = batch(0, 5)
    logits = model(tokens, mask)
    assert torch.isfinite(logits).all()
    logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@each
@pytest.mark.parametrize("sizes", [{"dim": 16, "heads": 1}, {"dim": 32, "heads": 8}, {"depth": 1}])
def test_other_sizes_work(name: str, sizes: dict[str, int]) -> None:
    model = encoder(name, length=9, vocabulary=257, classes=2, **sizes)
    tokens, mask = batch(9, 4, length=9)
    assert model(tokens, mask).shape == (2, 2)


@each
def test_same_seed_gives_the_same_weights_and_logits(name: str) -> None:
    tokens, mask = batch(50, 31)
    first, second = encoder(name, seed=3).eval(), encoder(name, seed=3).eval()
    with torch.inference_mode():
        assert (first(tokens, mask) == second(tokens, mask)).all()
        assert (first(tokens, mask) == first(tokens, mask)).all()


@each
def test_dropout_acts_in_training_only(name: str) -> None:
    model = encoder(name, dropout=0.5)
    tokens, mask = batch(50, 31)
    assert not torch.equal(model(tokens, mask), model(tokens, mask))
    model.eval()
    assert torch.equal(model(tokens, mask), model(tokens, mask))


@each
def test_training_under_bfloat16_autocast_works(name: str) -> None:
    model = encoder(name)
    tokens, mask = batch(50, 31, 2)
    exact = model(tokens, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(tokens, mask)
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max() + 0.05
    rough.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


LONGER = {"gated_recurrence", "tree", "nystrom"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in LONGER else []) for n in gallery.NAMES],
)
def test_a_few_steps_learn_a_toy_problem(name: str) -> None:
    """The label says which of two tokens occurs more often; a loss of log 2 = 0.69 is chance."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 3, (96, 21), generator=generator)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    labels = ((tokens == 2).sum(1) > 10).long()
    model = encoder(name, vocabulary=3, classes=2, length=21, dim=32, depth=1, heads=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(tokens, mask), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.35


@each
@pytest.mark.parametrize("task", PUBLISHED)
def test_no_design_holds_more_than_a_tenth_over_the_base_model(name: str, task: str) -> None:
    dim, depth, heads, mlp_dim, length = PUBLISHED[task]
    sizes = {"vocabulary": 257, "classes": 10, "length": length, "dim": dim, "depth": depth,
             "heads": heads, "mlp_dim": mlp_dim, "dropout": 0.1}  # fmt: skip

    def count(design: str) -> int:
        with torch.device("meta" if design != "performer" else "cpu"):
            model = load(design).CustomEncoder(**sizes)
        return sum(x.numel() for x in [*model.parameters(), *model.buffers()])

    assert count(name) <= 1.1 * count("softmax")


def test_a_task_finds_the_designs_of_its_family(tmp_path: Path) -> None:
    listops = find_task("lra/listops")
    theirs = Task(listops.folder, listops.definition.model_copy(update={"designs": ("s4d",)}), "")
    assert theirs.designs()[0].files == {"model.py": gallery.source_of("s4d").read_text()}
    assert theirs.designs()[0].summary.startswith("Bidirectional diagonal state-space")
    # A task's own file takes precedence over the gallery's of the same name.
    own = {design.name: design.files["model.py"] for design in listops.designs()}
    assert own["softmax"] == (listops.folder / "designs" / "softmax.py").read_text()
    assert own["softmax"] != gallery.source_of("softmax").read_text()


@pytest.mark.parametrize("name", KERNELS)
def test_designs_work_without_triton(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Triton a design uses its plain torch form, with equal results."""
    tokens, mask = batch(50, 31)
    with torch.inference_mode():
        wanted = encoder(name).eval()(tokens, mask)
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "triton.language", raising=False)
    with pytest.raises(ImportError):
        importlib.import_module("triton.language")
    plain = runpy.run_path(str(gallery.source_of(name)), run_name="plain")["CustomEncoder"]
    torch.manual_seed(0)
    model = plain(
        vocabulary=20, classes=5, length=50, dim=16, depth=2, heads=2, mlp_dim=24, dropout=0.0
    )
    with torch.inference_mode():
        assert torch.equal(model.eval()(tokens, mask), wanted)


def test_every_pair_of_designs_differs() -> None:
    tokens, mask = batch(50)
    with torch.inference_mode():
        logits = {name: encoder(name).eval()(tokens, mask) for name in gallery.NAMES}
    for a, b in product(gallery.NAMES, gallery.NAMES):
        assert a == b or not torch.allclose(logits[a], logits[b])


def test_torch_compile_finds_a_loaded_design() -> None:
    assert sys.modules[load("s4d").__name__] is load("s4d")
