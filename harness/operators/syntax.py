"""Checks whether Python files compile and what they define and call, in a separate process.

Deep nesting can overflow the parser's stack (how deep depends on the Python and on the thread),
and the parser's warnings use state that threads share; neither may affect the harness. The process
is reused, because starting one takes longer than all the rest of a step. It is replaced if a source
crashes it or takes too long. No source is executed.
"""

import atexit
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.base.answering import AnsweringProcess
from harness.operators.text import one_line

TIMEOUT_S = 20.0

_ANSWERS = """
import ast, json, symtable, sys

def look(source, name):
    try:
        compile(source, name, "exec", dont_inherit=True)
        top = symtable.symtable(source, name, "exec").get_symbols()
        called = (n.func for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call))
        holds = {s.get_name() for s in top if s.is_assigned()}
        holds |= {f"{getattr(f, 'id', getattr(f, 'attr', ''))}()" for f in called}
        return "", sorted(holds)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}", []
    except (RecursionError, MemoryError, ValueError, OverflowError):
        return "it is nested too deeply to be compiled", []

for line in sys.stdin:
    found = {name: look(source, name) for name, source in json.loads(line).items()}
    print(json.dumps(found), flush=True)
"""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Why a Python source does not compile ("" if it does), and which names it holds.

    It holds the names that it defines at its top level by class, def or assignment (an import
    does not count), and ``NAME()`` for each name that it calls anywhere.
    """

    error: str
    holds: frozenset[str] = frozenset()


_compiler = AnsweringProcess("-c", _ANSWERS, timeout_s=TIMEOUT_S)
atexit.register(_compiler.close)


def check_sources(sources: Mapping[str, str]) -> dict[str, SourceReport]:
    """Return a SourceReport for each Python source, by the same keys."""
    if not sources:
        return {}
    try:
        found = _compiler.ask(dict(sources))
    except (OSError, ValueError):
        gave_up = SourceReport("it cannot be compiled: Python's parser gave up")
        return dict.fromkeys(sources, gave_up)
    return {name: SourceReport(error, frozenset(holds)) for name, (error, holds) in found.items()}


def find_problems(
    files: Mapping[str, str], written: Collection[str], holds: Sequence[str]
) -> list[str]:
    """Return sentences on what is wrong with files: those just ``written``, and all together.

    ``holds``: the files must hold at least one of these names (``Definition.holds``).
    """
    found = check_sources({name: text for name, text in files.items() if name.endswith(".py")})
    wrong = {name: look.error for name, look in found.items() if look.error}
    problems = [f"{n} does not compile: {one_line(wrong[n], 200)}." for n in written if n in wrong]
    if (
        holds
        and found
        and not wrong
        and not any(look.holds & set(holds) for look in found.values())
    ):
        verb = "calls" if holds[0].endswith("()") else "defines"
        names = " or ".join(f"`{name}`" for name in holds)
        problems.append(f"{', '.join(found)} {verb} no {names}, and the task asks for it.")
    return problems
