"""Compiles a Triton kernel for an H100, and a C extension, which is what Triton's launchers are.

test_docker.py puts this file into a sandbox and runs it there. It launches nothing: no GPU needed.
"""

import os
import tempfile
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.build import _build

MODULE = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "launcher", 0, -1, 0};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&module); }
"""


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(out + at, tl.load(x + at, mask=inside) + tl.load(y + at, mask=inside), mask=inside)


types = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32", "BLOCK": "constexpr"}
source = ASTSource(fn=add, signature=types, constexprs={"BLOCK": 128})
kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32))
assert kernel.asm["cubin"][:4] == b"\x7fELF"

with tempfile.TemporaryDirectory() as folder:
    code = Path(folder, "launcher.c")
    code.write_text(MODULE)
    built = _build("launcher", str(code), folder, [], [], [], [])
    assert Path(built).read_bytes()[:4] == b"\x7fELF"

cache = Path(os.environ["HOME"], ".triton", "cache")
print(os.getuid(), len(list(cache.iterdir())) > 0)
