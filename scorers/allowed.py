"""Which names the source of a mechanism may use, which are refused, why, and what to write instead.

These tables are data only: ``source.py`` applies them, ``page`` renders the table in
``docs/reference/allowed.md``, and refusal messages quote them. This file imports only the standard
library, because it runs in a Python without packages.
"""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Rule(NamedTuple):
    """Words that are refused, the reason, and what to write instead."""

    words: frozenset[str]
    why: str
    instead: str


PACKAGES = _words("torch numpy einops triton")
"""Third-party packages that may be imported, submodules included."""

STANDARD = _words("""
    math cmath typing functools itertools operator collections dataclasses abc enum __future__
    warnings contextlib numbers copy random logging types heapq bisect string statistics fractions
    textwrap collections.abc logging.config
""")
"""Standard-library modules that may be imported; see ``member`` for which of their members."""

ONLY = {
    "types": _words("SimpleNamespace MappingProxyType"),
    "logging.config": _words("dictConfig"),
    "logging": _words("""
        getLogger Logger NullHandler Formatter basicConfig config disable captureWarnings
        debug info warning error critical exception log getLevelName
        DEBUG INFO WARNING ERROR CRITICAL FATAL NOTSET
    """),
}
"""Modules of which only these members may be named; their other members give access to more."""

NOT = {
    "typing": _words("get_type_hints ForwardRef"),  # evaluate annotations given as strings
    "string": _words("Formatter"),  # looks up attributes by a name given as a string
    "enum": _words("global_enum"),  # writes into modules
    "contextlib": _words("redirect_stdout redirect_stderr"),  # keep the replaced stream
}
"""Members that may not be named, in modules whose other members may."""

BUILTINS = (
    Rule(
        _words("eval exec compile __import__"),
        "run text as code",
        "the code itself (`model.eval()`, `torch.compile` and methods of these names are allowed)",
    ),
    Rule(
        _words("globals locals vars dir"),
        "reach what Python keeps",
        "a dict of your own (a local variable may bear the name)",
    ),
    Rule(
        _words("open breakpoint"),
        "reach files and the terminal",
        "nothing: what a model knows comes from its rows (a local variable may bear the name)",
    ),
    Rule(_words("delattr"), "changes what others made", "`del self.name`"),
)
"""Built-ins that may not be named, unless the file surely binds the name itself (``scopes.py``)."""

NAMED_MODULES = (
    Rule(
        _words("sys os builtins bltns importlib inspect ctypes gc io"),
        "the interpreter and the machine",
        "`print` for messages, `torch.finfo` for limits, settings as constants (an attribute of "
        "your own may bear the name where it is called, indexed or looped over)",
    ),
    Rule(
        _words("pathlib shutil tempfile pickle hub package serialization"),
        "files",
        "nothing: a mechanism has none",
    ),
    Rule(
        _words("subprocess socket threading multiprocessing distributed"),
        "other processes",
        "plain tensor code: a batch is computed in one process",
    ),
    Rule(
        _words("optim"),
        "trains",
        'nothing: the shell trains; tests go under `if __name__ == "__main__":`',
    ),
)
"""Modules that a library may have imported itself. Attributes of these names are refused, except on
other objects in a form that no module allows; see ``source._unlike_a_module``."""

NAMED_ATTRIBUTES = (
    Rule(
        _words("backward grad vjp jacrev jacobian enable_grad set_grad_enabled"),
        "train",
        'nothing: the shell trains; tests go under `if __name__ == "__main__":`, and a backward '
        "pass of your own into a `torch.autograd.Function`",
    ),
    Rule(
        _words("""
            register_hook register_post_accumulate_grad_hook register_full_backward_hook
            register_full_backward_pre_hook
        """),
        "change gradients",
        "a `torch.autograd.Function` with a `backward` of its own",
    ),
    Rule(_words("set_default_device"), "changes a library", "`device=x.device`"),
    Rule(
        _words("""
            load_library load_inline cpp_extension from_file memmap fromfile loadtxt genfromtxt
            DataSource ctypeslib read_text read_binary read_bytes handlers
        """),
        "read files",
        "nothing: what a model knows comes from its training rows",
    ),
    Rule(
        _words("""
            import_module _bootstrap _bootstrap_external _imp reload machinery resources find_spec
            spec_from_file_location spec_from_loader module_from_spec exec_module load_module
            source_to_code
        """),
        "import by text",
        "an `import` statement",
    ),
    Rule(_words("attrgetter methodcaller"), "name attributes by text", "`lambda x: x.name`"),
    Rule(
        _words("tb_frame f_globals f_locals f_back f_builtins gi_frame cr_frame ag_frame"),
        "reach Python's frames",
        "arguments and return values",
    ),
)
"""Attributes that may not be named, whatever object they belong to."""

LOADING = Rule(
    _words("load"),
    "reads files",
    "another name for your own, such as `read` (`self.load` and `tl.load` are allowed)",
)
WRITING = Rule(
    _words("save savetxt tofile"),
    "write files",
    "nothing: the shell keeps the model (a method of your own may be called `save`)",
)
"""Refused only as members of libraries: files written in a sandbox are deleted with it."""

ATTRIBUTES = (*NAMED_ATTRIBUTES, *NAMED_MODULES, LOADING)
"""Names that are refused in a ``getattr``, in a class pattern and in an import."""

DUNDERS = _words("""
    __init__ __name__ __qualname__ __class__ __version__ __call__ __len__ __all__ __new__
    __annotations__ __slots__
""")
"""Double-underscore names that may be read or set as attributes."""

SET = _words("""
    __slots__ __all__ __version__ __author__ __license__ __doc__ __constants__ __match_args__
    __call__ __repr__ __str__ __hash__ __eq__ __len__ __iter__ __getitem__ __annotations__
""")
"""Double-underscore names that a file or a class may assign to. A method may have any of them."""

OF_SUPER = _words("""
    __setattr__ __getattr__ __getattribute__ __delattr__ __repr__ __str__ __iter__ __getitem__
    __setitem__ __contains__ __enter__ __exit__ __eq__ __hash__ __init_subclass__ __setstate__
    __getstate__ __torch_function__ __dir__
""")
"""Double-underscore names that may be used on ``super()``, which is the object itself."""

BY_NAME = _words("torch.nn torch.nn.functional torch.nn.init")
"""Modules from which ``getattr`` may read a computed name, besides ``self``."""

IMPORTS = f"one of {', '.join(sorted(PACKAGES | {s for s in STANDARD if '.' not in s}))}"
MEMBERS = "a documented member, by its name: `module.member`"
DUNDER = (
    "plain attributes; `super().__setattr__(…)` and its like, and methods of such names, are fine"
)
GETTER = (
    "`{'gelu': F.gelu}[name]`; a computed name is allowed of `self`, `nn`, `nn.functional` and "
    "`nn.init`, and in a `__getattr__` that passes its name on to a part of `self`"
)
CHANGED = "a subclass or a function of your own (`torch.backends` may be set)"
PRIVATE = "the library's public names"
LOGGING = (
    "`logging.getLogger(__name__)`, `logging.basicConfig(level=…)`, or one literal dict of stream "
    "handlers for `logging.config.dictConfig`"
)


def rule(name: str, table: tuple[Rule, ...]) -> Rule | None:
    """Return the rule in ``table`` that refuses a name, or None."""
    return next((r for r in table if name in r.words), None)


@cache
def member(module: str, name: str) -> bool:
    """Return whether ``name`` is a documented member of a module in STANDARD."""
    if f"{module}.{name}" in STANDARD:
        return True
    if module in ONLY:
        return name in ONLY[module]
    found = import_module(module)
    public = getattr(found, "__all__", None)
    if public is None:
        plain = not name.startswith("_") and not isinstance(getattr(found, name, None), ModuleType)
        return plain and hasattr(found, name)
    return name in public and name not in NOT.get(module, ())


def page() -> str:
    """Return the table of refusals in ``docs/reference/allowed.md``, in Markdown."""
    lines = ["| refused | why | write instead |", "|---|---|---|"]
    for kind, table in (
        ("", BUILTINS),
        (".", NAMED_MODULES),
        (".", (*NAMED_ATTRIBUTES, LOADING)),
        ("library.", (WRITING,)),
    ):
        for r in table:
            names = " ".join(f"`{kind}{word}`" for word in sorted(r.words))
            lines.append(f"| {names} | {r.why} | {r.instead} |")
    lines += [
        f"| any other `import` | files, processes, the machine | {IMPORTS} |",
        f"| `logging` to files, `logging.config` by files | files | {LOGGING} |",
        f"| undocumented members of Python's modules, and these as values | they lead on | "
        f"{MEMBERS} |",
        f"| `torch._…` and its like | not for users | {PRIVATE} |",
        f"| `torch.x = …`, `setattr(nn, …)` | changes a library | {CHANGED} |",
        f"| other names with double underscores | Python's insides | {DUNDER} |",
        f"| `getattr` of others with a computed name, or not called | any name at all | {GETTER} |",
    ]
    return "\n".join(lines) + "\n"
