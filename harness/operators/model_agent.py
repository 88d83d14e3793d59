"""The agent with a model: sends a prompt, reads the answer, asks again if it cannot be used.

asking.py builds the prompts, answers.py reads the answers, harness.agents.calls records the calls.
"""

from dataclasses import dataclass, field, replace

from harness.core.agent import Answer, Ask
from harness.core.model import Endpoint, Model, Prompt, Reply
from harness.core.writing import Writing
from harness.operators.answers import kept_files, read
from harness.operators.asking import ANALYZE, ASKS, Operators, model_of
from harness.operators.blinding import Blindfold
from harness.operators.blocks import ends_in_block
from harness.operators.literature import literature_hash
from harness.operators.memory import ANALYSIS, remembered
from harness.operators.parsing import ParsedFiles, tidy, without_thinking
from harness.operators.templates import prompts_hash
from harness.operators.text import from_terminal, one_line

OVERLAP = 2000
"""Characters of a cut-off answer's end that its continuation may have repeated."""

ONLY_THOUGHT = (
    "Nothing but reasoning came before the limit of length: there is no answer. Think far less "
    "this time, and begin with the file at once."
)
"""Sent to the model once: if the next answer is all reasoning too, a third would only cost more."""

PARTIAL = 4
"""Least length of a cut-off line that counts as a repetition if the model writes it again."""


class ModelAgent:
    """Writes submissions with the model that comes with each request."""

    trusted = False

    def __init__(
        self, name: str, writing: Writing | None = None, endpoint: Endpoint | None = None
    ) -> None:
        """Raises ConfigError if the folders of ``writing`` are not valid.

        ``endpoint`` is the model behind ``Ask.model``; None if all answers are recorded.
        """
        self.name = name
        self.endpoint = endpoint
        self.writing = writing or Writing()
        self._operators = Operators(self.writing)

    def describe(self) -> dict[str, object]:
        """Return the settings that decide its answers, besides those of the run."""
        return {
            "asks": self.endpoint.client.describe() if self.endpoint else None,
            "prompts": prompts_hash(self.writing.prompts),
            "literature": literature_hash(self.writing.literature),
        }

    def write(self, ask: Ask) -> Answer:
        """Answer one request. Raises ConfigError, and what ``Model.complete`` raises.

        After ``ASKS`` answers that cannot be used, or two in a row that were all reasoning, the
        files that exist go to the judge, which reports what is wrong; the note begins with why.
        """
        if not self.writing.blind:
            return self._write(ask)
        blindfold = Blindfold.of(ask.task, ask.profile, ask.run_seed)
        answer = self._write(blindfold.over(ask))
        return replace(answer, files=blindfold.real(answer.files))

    def _write(self, ask: Ask) -> Answer:
        analyses = self._analyses(ask) if self.writing.analyze else {}
        edits = self.writing.answer_format == "edits" and bool(kept_files(ask))
        first = self._operators.request(ask, analyses, whole=not edits)
        talk = _Conversation(model_of(ask))
        problems: tuple[str, ...] = ()
        prompt, purpose, best = first, str(ask.operator), ParsedFiles()
        for asked in range(1, ASKS + 1):
            reply, text = talk.ask(prompt, purpose)
            reading = _read(ask, reply, text, edits=edits)
            if reading.problems and reply.stop == "length" and not talk.continued:
                more = self._operators.more(ask, prompt, text)
                if more is not None:
                    reply, text = talk.go_on(more, text)
                    reading = _read(ask, reply, text, edits=edits)
            if not reading.problems:
                return self._answer(first, talk, reading, reading.note, analyses)
            if reading.files or not best.files:
                best = reading
            if asked == ASKS or (reading.problems == problems == (ONLY_THOUGHT,)):
                break
            problems = reading.problems
            if asked == ASKS - 1:
                edits = False  # after two failed tries with edits, ask for whole files
            prompt = self._operators.again(
                ask,
                first,
                "" if reply.stop == "refusal" else without_thinking(text),
                problems=reading.problems,
                asked=asked + 1,
                whole=not edits,
            )
            purpose = "again"
        why = f"no usable answer in {asked} requests: {reading.problems[0]}"
        if reading.problems == (ONLY_THOUGHT,):
            why = (
                f"no answer in {asked} requests: reasoning used up the limit (--max-answer-tokens)"
            )
        return self._answer(first, talk, best, f"{why} {best.note}".strip(), analyses)

    def _answer(
        self,
        first: Prompt,
        talk: "_Conversation",
        reading: ParsedFiles,
        note: str,
        analyses: dict[int, str],
    ) -> Answer:
        return Answer(
            files=reading.files,
            note=one_line(note, 400),
            prompt=_prompt_file(first),
            completion=talk.file(),
            analyses=analyses,
        )

    def _analyses(self, ask: Ask) -> dict[int, str]:
        """Analyse the nodes in this request's memory that have no analysis yet.

        This is done here, not when a node is scored: the analyses are journalled with the node
        that needed them, so a tree rebuilt from the journal holds the same memory.
        """
        analyses: dict[int, str] = {}
        for node in remembered(ask):
            if node.analysis is None and node.files:
                prompt = self._operators.analysis(ask, node)
                reply = model_of(ask).complete(prompt, purpose=ANALYZE)
                said = "" if reply.stop == "refusal" else without_thinking(tidy(reply.text))
                analyses[node.number] = one_line(said, ANALYSIS)
        return analyses


@dataclass
class _Conversation:
    """The conversation about one node, and its record."""

    model: Model
    continued: bool = False
    turns: list[str] = field(default_factory=list)

    def ask(self, prompt: Prompt, purpose: str) -> tuple[Reply, str]:
        if self.turns:
            self.turns.append(f"# request: {purpose}\n\n{prompt.turns[-1].text}")
        reply = self.model.complete(prompt, purpose=purpose)
        text = tidy(reply.text)
        self.turns.append(f"# answer (ended: {reply.stop})\n\n{text}")
        return reply, text

    def go_on(self, prompt: Prompt, before: str) -> tuple[Reply, str]:
        """Ask for the rest of an answer; return the last reply and the whole text."""
        self.continued = True
        reply, rest = self.ask(prompt, "continue")
        return reply, _joined(before, without_thinking(rest))

    def file(self) -> str:
        return from_terminal("\n\n".join(self.turns)) + "\n"


def _read(ask: Ask, reply: Reply, text: str, *, edits: bool) -> ParsedFiles:
    if reply.stop == "refusal":
        return ParsedFiles({}, ("The provider refused to answer.",))
    if reply.stop == "length" and not without_thinking(text).strip():
        return ParsedFiles({}, (ONLY_THOUGHT,))
    return read(ask, text, cut=reply.stop == "length", edits=edits)


def _joined(before: str, rest: str) -> str:
    """Return an answer and its continuation as one text.

    Models tend to open the block again and to repeat some of the text before; both are removed.
    """
    if ends_in_block(before):
        first, newline, others = rest.lstrip("\n").partition("\n")
        if newline and first.strip("`~ ") and first.lstrip().startswith(("```", "~~~")):
            rest = others
        line = before.rpartition("\n")[2]
        if len(line.strip()) >= PARTIAL and rest.lstrip().startswith(line.strip()):
            return before.removesuffix(line) + rest
    for size in range(min(OVERLAP, len(rest), len(before)), 0, -1):
        # Whole lines only: a repeated word or bracket may be intended.
        if before.endswith(rest[:size]) and "\n" in rest[:size].rstrip("\n"):
            return before + rest[size:]
    return before + rest


def _prompt_file(prompt: Prompt) -> str:
    turns = "\n".join(f"# {turn.role}\n\n{turn.text}" for turn in prompt.turns)
    return f"# system\n\n{prompt.system}\n{turns}"
