"""What the source of a mechanism must not use, and that honest sources are accepted."""

import ast
import sys
from pathlib import Path

import pytest

from sandboxes.image import recipe
from scorers import allowed
from scorers.score import Reason
from scorers.source import reaches
from scorers.submission import CONSTANTS_LIMIT, Rejected, read
from tasks.spec import find_task

HEAD = """
import math
from functools import partial
import torch
import torch.nn.functional as F
from torch import nn
"""


def reading(text: str):
    return read(find_task("lra/listops"), "test", {"model.py": HEAD + text})


@pytest.mark.parametrize(
    "text",
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
        "match torch:\n    case object(sys=s): pass",
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
def test_what_a_mechanism_has_no_use_for_is_named_with_its_line(in_process, text):
    with pytest.raises(Rejected) as caught:
        reading("\n" + text)
    assert caught.value.reason == Reason.FORBIDDEN
    assert f"line {HEAD.count(chr(10)) + 2 + text.count(chr(10))}: " in caught.value.message
    assert [audit.passed for audit in caught.value.audits] == [False, True]


@pytest.mark.parametrize(
    "text",
    [
        # Builtins under names that only look like variables.
        "if torch is None:\n    open = 1\nopen('x')",
        "open('x')\nopen = 1",
        "try:\n    from torch import nothing as open\nexcept ImportError:\n    pass\nopen('x')",
        "def f():\n    from math import pi as open\nopen('x')",
        "class A:\n    if torch is None:\n        open = 1\n    text = open('x')",
        "def f():\n    global open\n    if torch is None:\n        open = 1\n    open('x')",
        "def f(open):\n    pass\nopen('x')",
        "[open for open in ()]\nopen('x')",
        "def open(x):\n    return x\ndel open\nopen('x')",
        "if __name__ == '__main__':\n    import math as open\nopen('x')",
        # Blocks that run although they look like ``if __name__ == "__main__"``, which does not.
        "if __name__ != '__main__':\n    torch.load('x')",
        "if __name__ == '__main__':\n    pass\nelse:\n    torch.load('x')",
        "__name__ = '__main__'\nif __name__ == '__main__':\n    torch.load('x')",
        "import math as __name__",
        "def f():\n    if __name__ == '__main__':\n        torch.load('x')",
        # Modules that are reached as attributes.
        "t = torch\nx = t.sys",
        "t = torch\nt.sys.modules",
        "t = torch\nprint(t.sys)",
        "t = torch\nx = t.sys + Leak()",
        "t = torch\nt.sys += Leak()",
        "t = torch\nt.os.open('x')",
        "torch.sys('x')",
        "getattr(F, 'import' + 'lib').import_module('o' + 's')",
        "getattr(F, 'import' + 'lib')._bootstrap",
        "getattr(*(torch, 'sys'))",
        "getattr(torch, 'load')",
        "getattr(torch, 'save')",
        "getattr(torch, '_C')",
        "name = 's' + 'ys'\ngetattr(torch, name)",
        "match torch:\n    case object(load=f):\n        pass",
        # Parts of standard modules that are not allowed.
        "import enum\nenum.bltns",
        "import enum\ne = enum\ne.x",
        "import dataclasses\ndataclasses.types.FunctionType",
        "from dataclasses import types",
        "import types\ntypes.FunctionType",
        "import typing\ntyping.get_type_hints(f)",
        "import string\nstring.Formatter()",
        "import operator\noperator.attrgetter('x')",
        "from operator import methodcaller",
        "from contextlib import redirect_stdout",
        "import logging.handlers",
        "import logging\nlogging.FileHandler('x')",
        "import logging\nlogging.StreamHandler().stream",
        "import logging\nlogging.getLogger().handlers[0].stream",
        "import logging\nlogging.basicConfig(filename='x', filemode='r')",
        "import logging\nlogging.basicConfig(**{'filename': 'x'})",
        "import logging\nb = logging.basicConfig",
        "from logging import basicConfig",
        "import logging.config\nlogging.config.dictConfig({'handlers': {'a': {'()': 'x.y'}}})",
        "import logging.config\n"
        "logging.config.dictConfig({'handlers': {'a': {'class': 'logging.FileHandler'}}})",
        "import logging.config\nlogging.config.dictConfig({'a': ['ext://builtins']})",
        "import logging.config\nlogging.config.dictConfig(dict(a=f()))",
        "import logging.config\nlogging.config.fileConfig('x')",
        # Names with double underscores that lead to other objects.
        "object.__setattr__(F, 'cross_entropy', print)",
        "x = torch.__dict__",
        "x = len.__self__",
        "x = (lambda: 0).__globals__",
        "class A:\n    'data'\nx = A.__doc__",
        "class A:\n    def f(self):\n        return super().__dict__",
        "class A(nn.Module):\n    def __getattr__(self, name):\n"
        "        return getattr(self.t, name)\n"
        "    def f(self):\n        return getattr(self, 's' + 'ys')",
        "class A(nn.Module):\n    def __getattr__(self, name):\n        name = 's' + 'ys'\n"
        "        return getattr(self.t, name)",
        "class A:\n    def __getattr__(self, name):\n        return getattr(torch, name)",
    ],
)
def test_what_only_looks_harmless_is_refused(text):
    assert reaches(ast.parse(HEAD + text))


def test_what_honest_mechanisms_write_is_left_alone():
    text = """
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
    audits = reading(text).audits
    assert [(audit.name, audit.passed) for audit in audits] == [
        ("mechanism only", True),
        ("constants", True),
    ]


ORDINARY = {
    "local names": """
def f(x, open=False, dir=None):
    vars, compile = x.chunk(2)
    globals = [dir for dir in (1, -1)]
    return vars if open else compile, globals, (lambda eval: eval + 1)(2), (input := x)
def dir(x):
    return x
y = dir(3)
""",
    "names of modules for attributes": """
class A(nn.Module):
    def __init__(self):
        super().__init__()
        self.os, self.gc, self.sys = nn.Linear(1, 1), nn.ModuleList(), nn.ModuleDict()
        self.distributed: bool = False
    def forward(self, x):
        for layer in self.gc:
            x = layer(x)
        return self.os(self.sys["a"](x))
""",
    "methods named as what reads and writes": """
class Cache:
    def save(self, x): self.x = x
    def load(self): return self.x
    def exec(self): return self.load()
    def eval(self): return self.exec()
cache = Cache()
cache.save(1)
cache.eval()
""",
    "a test at the end": """
if __name__ == "__main__":
    import os, sys, time, argparse
    loss = nn.Linear(1, 1)(torch.ones(1, 1)).sum()
    loss.backward()
    torch.save(loss.grad, sys.argv[1])
    with open(os.devnull) as file:
        exec(file.read())
""",
    "activations and layers by name": """
def f(kind, norm):
    return getattr(F, kind), getattr(nn, norm)(3), getattr(nn.init, kind), hasattr(torch, kind)
setattr(f, "registered", True)
""",
    "slots and attributes set with care": """
from dataclasses import dataclass, field
@dataclass(frozen=True)
class C:
    __match_args__ = ("a",)
    a: list = field(default_factory=list)
    def __post_init__(self):
        object.__setattr__(self, "b", len(self.a))
class D:
    __slots__ = ("a", "__weakref__")
    def __setattr__(self, name, value): super().__setattr__(name, value)
    def __repr__(self): return f"{self.__class__.__qualname__}({self.a!r})"
class E(nn.Module):
    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)
""",
    "logging": """
import logging
import logging.config
logging.basicConfig(level=logging.INFO, format="%(message)s")
logging.config.dictConfig({"version": 1, "handlers": {"c": {"class": "logging.StreamHandler",
    "stream": "ext://sys.stderr"}}, "loggers": {"a": {"handlers": ["c"], "level": "INFO"}}})
logger = logging.getLogger(__name__)
logger.info("%d", 3)
""",
    "Python's own modules": """
import abc, bisect, collections, enum, heapq, itertools, numbers, operator, random, types, warnings
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from types import SimpleNamespace
cfg = SimpleNamespace(a=1)
def f(copy=False, random=None):
    return copy or random, operator.mul(2, 3), operator.itemgetter(0), random
class A(enum.Enum):
    X = enum.auto()
""",
    "torch as it is used": """
from torch.autograd import Function
from torch.func import functional_call, vmap
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint
import torch.fft
@torch.compile
@torch.no_grad()
def f(x):
    torch.cuda.is_available()
    return torch.fft.rfft(x).detach(), x.grad_fn, torch.einsum("ij->i", x)
class A(nn.Module):
    __constants__ = ["k"]
    @torch.jit.ignore
    def f(self, x):
        hash, id, type = x.unbind()
        self.register_buffer("b", hash)
        self.register_forward_hook(lambda *a: None)
        return F.scaled_dot_product_attention(id, type, hash), self.eval(), self.modules()
    @torch.inference_mode()
    def g(self):
        'open, os, eval(): words in a docstring; import sys'
""",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_how_researchers_write_is_not_accused(name):
    assert reaches(ast.parse(HEAD + ORDINARY[name])) == []


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("import os", "one of __future__, abc, bisect"),
        ("eval('1')", "`torch.compile` and methods of these names are allowed"),
        ("t.save\nt.load", "`self.load` and `tl.load` are allowed"),
        ("torch.optim", 'tests go under `if __name__ == "__main__":`'),
        ("getattr(cfg, name)", "{'gelu': F.gelu}[name]"),
        ("import logging\nlogging.FileHandler('x')", "`module.member`"),
        ("from . import x", "all of it into one file"),
    ],
)
def test_a_refusal_says_what_to_write_instead_and_where_the_rules_are(in_process, text, instead):
    with pytest.raises(Rejected) as caught:
        reading(text)
    assert instead in caught.value.message
    assert "docs/reference/allowed.md" in caught.value.message


def test_the_page_of_the_rules_is_what_the_reader_goes_by():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "allowed.md").read_text()
    assert allowed.page() in page
    for name in (*allowed.PACKAGES, *allowed.STANDARD):
        assert f"`{name}`" in page, name


def test_every_word_of_the_rules_is_refused_with_its_remedy():
    for table, form in (
        (allowed.BUILTINS, "{}"),
        (allowed.NAMED_MODULES, "x = torch.nn.{}"),
        ((*allowed.NAMED_ATTRIBUTES, allowed.LOADING), "x = y.{}"),
        ((allowed.WRITING,), "x = torch.{}"),
    ):
        for rule in table:
            text = "\n".join(form.format(word) for word in sorted(rule.words))
            text += "\nimport torch"
            found = {(line, instead) for line, _, instead in reaches(ast.parse(text))}
            assert {line for line, _ in found} == set(range(1, len(rule.words) + 1)), rule
            if "__import__" not in rule.words:
                assert {instead for _, instead in found} == {rule.instead}


def test_what_may_be_imported_is_there_in_the_image_and_in_the_extra_of_torch():
    others = allowed.PACKAGES - {"triton"}  # comes with torch's CUDA build
    assert others == {name.partition("==")[0] for name in recipe.wanted()}
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert "einops>=0.8.2,<0.9" in next(line for line in text.splitlines() if "torch = [" in line)
    assert {name.split(".")[0] for name in allowed.STANDARD} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "constants",
    [
        "TABLE = {table!r}",
        "TABLE = {table!r}.encode()",
        "TABLE = f'{{1}}{table}'",
        "def f(**known): pass\nf({names})",
    ],
)
def test_more_constants_than_a_mechanism_needs_are_brought_along(in_process, constants):
    table = "".join(f"{i * 7919 % 104729:x}" for i in range(600))
    names = ", ".join(f"x{table[i : i + 60]}=1" for i in range(0, 2400, 60))
    with pytest.raises(Rejected, match=f"{CONSTANTS_LIMIT:,} are allowed") as caught:
        reading(constants.format(table=table, names=names))
    assert caught.value.reason == Reason.BROUGHT_ALONG


def test_documentation_is_no_constant():
    text = " ".join(str(i * 7919) for i in range(2000))
    audits = reading(f'"""{text}"""\n# {text}\n').audits
    assert audits[1].value < 100


@pytest.mark.parametrize("text", ["x = (", "(" * 5000 + ")" * 5000, "x = " + "-" * 100_000 + "1"])
def test_text_that_cannot_be_read_never_runs(text):
    with pytest.raises(Rejected) as caught:
        reading(text)
    assert caught.value.reason == Reason.SYNTAX_ERROR
    assert "model.py" in caught.value.message
