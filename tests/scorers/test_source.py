"""What the text of a mechanism may not reach for, and that honest text is left alone."""

import pytest

from scorers.score import Reason
from scorers.submission import CONSTANTS_LIMIT, Rejected, read
from tasks.spec import find_task

HEAD = """
import math
from functools import partial
import torch
import torch.nn.functional as F
from torch import nn
"""


def reading(source: str):
    return read(find_task("lra/listops"), "test", {"model.py": HEAD + source})


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import numpy.ctypeslib",
        "from torch import sys as s",
        "from torch import load",
        "from torch.nn.modules.module import *",
        "from . import judge",
        "torch.load('x')",
        "t = torch\nt.load('x')",
        "torch.jit.load('x')",
        "open('/data/train/tokens.npy')",
        "from functools import reduce\nreduce(getattr, ['sys'], torch)",
        "getattr(torch, 's' + 'ys')",
        "getattr(torch, 'sys')",
        "setattr(nn, 'Linear', None)",
        "F.cross_entropy = print",
        "nn.Module.train = print",
        "torch.Tensor.numel = lambda self: 1",
        "del torch.nn",
        "x = ().__class__.__mro__",
        "match torch:\n    case object(sys=s):\n        pass",
        "def f(loss):\n    loss.backward()",
        "def f(p):\n    p -= 0.1 * p.grad",
        "torch.optim.SGD",
        "torch.autograd.grad",
        "torch._C",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    e.__traceback__",
        "exec('1')",
        "__import__('os')",
    ],
)
def test_what_a_mechanism_has_no_use_for_is_named_with_its_line(source):
    with pytest.raises(Rejected) as caught:
        reading("\n" + source)
    assert caught.value.reason == Reason.FORBIDDEN
    assert f"line {HEAD.count(chr(10)) + 2 + source.count(chr(10))}" in caught.value.message or (
        chr(10) in source
    )
    assert [audit.passed for audit in caught.value.audits] == [False, True]


def test_what_honest_mechanisms_write_is_left_alone():
    source = """
import triton.language as tl
torch.backends.cuda.matmul.allow_tf32 = True

class Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x
    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope

def kernel(p, q):
    tl.store(q, tl.load(p))

class CustomEncoder(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        for i in range(3):
            setattr(self, f"layer{i}", nn.Linear(4, 4))
        self.act = getattr(F, "gelu")
        with torch.no_grad():
            self.layer0.weight.copy_(torch.eye(4))
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, input, mask):
        return getattr(self, "layer1")(self.__class__.__name__)
"""
    audits = reading(source).audits
    assert [(audit.name, audit.passed) for audit in audits] == [
        ("mechanism only", True),
        ("constants", True),
    ]


@pytest.mark.parametrize(
    "constants",
    [
        "TABLE = {table!r}",
        "TABLE = {table!r}.encode()",
        "TABLE = f'{{1}}{table}'",
        "def f(**known): pass\nf({names})",
    ],
)
def test_more_constants_than_a_mechanism_needs_are_brought_along(constants):
    table = "".join(f"{i * 7919 % 104729:x}" for i in range(600))
    names = ", ".join(f"x{table[i : i + 60]}=1" for i in range(0, 2400, 60))
    with pytest.raises(Rejected, match=f"{CONSTANTS_LIMIT:,} are allowed") as caught:
        reading(constants.format(table=table, names=names))
    assert caught.value.reason == Reason.BROUGHT_ALONG


def test_documentation_is_no_constant():
    text = " ".join(str(i * 7919) for i in range(2000))
    audits = reading(f'"""{text}"""\n# {text}\n').audits
    assert audits[1].value < 100


@pytest.mark.parametrize("source", ["x = (", "(" * 5000 + ")" * 5000, "x = " + "-" * 100_000 + "1"])
def test_text_that_cannot_be_read_never_runs(source):
    with pytest.raises(Rejected) as caught:
        reading(source)
    assert caught.value.reason == Reason.SYNTAX_ERROR
    assert "model.py" in caught.value.message
