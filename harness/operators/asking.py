"""Builds the prompt for a request: draft, improve, debug, crossover, analyze.

A prompt is a pure function of the request (task, profile, tree, node, parents, seed, and what the
parents printed), of the run's options and of what fits the model. It uses no clock, and only the
seed for random choices, so a resumed or replayed run sends the same prompts. Text that is the same
all through a run stands in the system part, for providers' caches. Calls are made in
model_agent.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.base.errors import ConfigError
from harness.core.agent import Ask
from harness.core.model import Model, Prompt, Turn
from harness.core.tree import Node
from harness.core.writing import Writing
from harness.operators import literature
from harness.operators.limits import LIMITS, Part, smaller
from harness.operators.memory import attempts, memory, outcome
from harness.operators.parsing import show_files, without_thinking
from harness.operators.templates import Templates
from harness.operators.text import fence, from_terminal, one_line, trim_middle

ANALYZE = "analyze"

ASKS = 3
"""Requests for one node before it is given up (AIRA-dojo: three tries); in addition, one answer
that was cut off is continued."""

LOG_ENDS = 64 << 10
"""Characters read of a log's beginning and of its end; prompts never show more."""


class Operators:
    """Builds the prompts of one run. Raises ConfigError if its folders are not valid."""

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self._templates = Templates(writing.prompts)
        self._notes = literature.load(writing.literature)

    def request(self, ask: Ask, analyses: Mapping[int, str], *, whole: bool) -> Prompt:
        """Return the prompt that asks for a submission, ``whole`` or as edits."""
        return self._fitting(ask, ask.operator, analyses, whole=whole)

    def analysis(self, ask: Ask, node: Node) -> Prompt:
        """Return the prompt that asks what a node's outcome teaches."""
        return self._fitting(replace(ask, parents=(node,)), ANALYZE, {}, whole=True)

    def again(
        self,
        ask: Ask,
        first: Prompt,
        answer: str,
        *,
        problems: Sequence[str],
        asked: int,
        whole: bool,
    ) -> Prompt:
        """Return ``first``, the answer and its problems; to fit, the answer is cut or left out."""
        values = self._constant(ask, LIMITS)
        values |= {"problems": list(problems), "asked": asked, "asks": ASKS, "whole": whole}
        text = self._templates.render("again.md", values)
        model = model_of(ask)
        for limit in (10**9, 16_000, 2_000):
            # An empty turn of the assistant is refused by some providers.
            if shown := trim_middle(answer.strip(), limit):
                prompt = _with(first, shown, text)
                if model.fits(prompt):
                    return prompt
        (only,) = first.turns
        return Prompt(first.system, (Turn("user", f"{only.text}\n{text}"),))

    def more(self, ask: Ask, first: Prompt, answer: str) -> Prompt | None:
        """Return ``first`` with a cut-off answer and the request to go on.

        None if that prompt is too long, or if the answer holds nothing but reasoning.
        """
        if not without_thinking(answer).strip():
            return None
        text = self._templates.render("continue.md", self._constant(ask, LIMITS))
        prompt = _with(first, answer, text)
        return prompt if model_of(ask).fits(prompt) else None

    def _fitting(
        self, ask: Ask, operator: str, analyses: Mapping[int, str], *, whole: bool
    ) -> Prompt:
        """Return the fullest prompt that fits the model's context."""
        model = model_of(ask)
        limits: Mapping[Part, int] | None = LIMITS
        reads_output = operator != "crossover"  # as in AIRA-dojo, whose template leaves it out
        printed = {n.number: _ends(ask.log(n.number)) for n in ask.parents if reads_output}
        while limits is not None:
            values = self._constant(ask, limits)
            values |= self._request(ask, analyses, limits, operator)
            values |= {
                "whole": whole,
                "parents": [
                    _parent(node, limits, printed.get(node.number, "")) for node in ask.parents
                ],
            }
            system = self._templates.render("system.md", values)
            text = self._templates.render(f"{operator}.md", values)
            prompt = Prompt(system, (Turn("user", text),))
            if model.fits(prompt):
                return prompt
            limits = smaller(limits)
        raise ConfigError(
            f"The shortest prompt for {ask.task.name} does not fit the model's context.",
            cause=f"{operator} of node {ask.node}, with every part at its floor",
            remedy="a model with a longer context, or a lower limit of output for this one",
        )

    def _constant(self, ask: Ask, limits: Mapping[Part, int]) -> dict[str, Any]:
        """Return the template values that are the same in every prompt of a run."""
        definition, profile = ask.task.definition, ask.task.profile(ask.profile)
        return {
            "title": definition.title,
            "description": trim_middle(ask.task.description(ask.profile).strip(), limits["task"]),
            "files": list(definition.files),
            "metric": definition.metric.replace("_", " "),
            "better": "higher" if definition.direction == "maximize" else "lower",
            "profile": ask.profile,
            "about": profile.about.rstrip("."),
            "limits": _limits(ask),
            "titles": literature.titles(self._notes, limits["titles"]),
            "edits": self.writing.answer_format == "edits",
        }

    def _request(
        self,
        ask: Ask,
        analyses: Mapping[int, str],
        limits: Mapping[Part, int],
        operator: str,
    ) -> dict[str, Any]:
        """Return the template values of one request."""
        searching = operator in ("draft", "improve")
        best = ask.tree.best(before=ask.node)
        about = " ".join(node.note for node in ask.parents)
        reads = searching or operator == "crossover"
        return {
            "node": ask.node,
            "steps": ask.steps,
            "best": f"node {best.number}, {outcome(best)}" if best and searching else "",
            "memory": memory(ask, analyses, limits["memory"]) if searching else "",
            "attempts": attempts(ask, analyses, limits["attempts"]) if operator == "debug" else "",
            "notes": literature.choose(self._notes, about, ask.seed, limits["notes"])
            if reads
            else "",
            "cue": _cue(ask) if self.writing.complexity else "",
        }


def _parent(node: Node, limits: Mapping[Part, int], printed: str) -> dict[str, int | str]:
    """Return a node as templates see it. All but ``number`` is text that is ready to be shown."""
    output = trim_middle(printed, limits["output"])
    message = trim_middle(from_terminal(node.message), limits["message"])
    share = limits["code"] // max(1, len(node.files))
    code = {name: trim_middle(text, share) for name, text in node.files.items()}
    return {
        "number": node.number,
        "outcome": outcome(node, message=0),
        "reason": node.reason or "unknown",
        "note": fence(one_line(node.note, 400) or "(no note)", "text"),
        "code": show_files(code),
        "output": fence(output, "text") if output.strip() else "",
        "message": fence(message, "text") if message.strip() else "",
    }


def model_of(ask: Ask) -> Model:
    """Return the request's model. Raises ConfigError without one."""
    if ask.model is None:
        raise ConfigError("This agent needs a model, and the request brings none.")
    return ask.model


def _with(first: Prompt, answer: str, text: str) -> Prompt:
    return Prompt(first.system, (*first.turns, Turn("assistant", answer), Turn("user", text)))


def _limits(ask: Ask) -> str:
    """Return the limits of one evaluation as a list."""
    profile = ask.task.profile(ask.profile)
    limits = profile.limits
    if not ask.task.runs_code:
        return f"- {limits.source_kb:,} KiB of text; none of it is executed"
    device = {"cpu": "no GPU", "gpu": "one GPU", "any": "a GPU if the machine has one"}
    lines = [
        f"- {limits.train_s:g} s from the start of the process to the first answer",
        f"- then {limits.serve_s:g} s for all answers",
        f"- {device[profile.device]}, {limits.cpus} CPU cores, {limits.memory_mb:,} MB of memory,"
        f" {limits.scratch_mb:,} MB of scratch space, no network",
        f"- {limits.source_kb:,} KiB of source",
    ]
    if limits.max_parameters is not None:
        lines.append(f"- {limits.max_parameters:,} parameters")
    return "\n".join(lines)


def _cue(ask: Ask) -> str:
    """Return AIRA-dojo's complexity cue, by the number of the parent's children or of drafts."""
    older = [node for node in ask.tree if node.number < ask.node]
    if ask.parents:
        tried = sum(ask.parents[0].number in node.parents for node in older)
    else:
        tried = sum(node.operator == "draft" for node in older)
    return "simple" if tried < 2 else "normal" if tried < 4 else "complex"


def _ends(log: str) -> str:
    """Return the beginning and the end of a log, cleaned; the middle would not fit a prompt."""
    if len(log) > 2 * LOG_ENDS:
        gone = len(log) - 2 * LOG_ENDS
        log = f"{log[:LOG_ENDS]}\n[… {gone:,} characters left out …]\n{log[-LOG_ENDS:]}"
    return from_terminal(log)
