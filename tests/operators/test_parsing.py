"""Parsing of models' answers: read where the meaning is clear, else refused with a reason."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.operators import syntax
from harness.operators.answers import read
from harness.operators.edits import apply_edits, find_edits
from harness.operators.parsing import parse_files, show_files, tidy, without_thinking
from tasks.definition import TASKS_DIR
from tasks.spec import Task, all_tasks
from tests.operators.model import ask, scored

ANSWERS = Path(__file__).parent / "answers"
WANTED = ("model.py",)
OURS = [t for t in all_tasks().values() if TASKS_DIR in t.folder.parents and t.variant == "fixed"]
assert OURS  # else a parametrised test below would have no cases
LIMIT = 64 * 1024


def parsed(text: str, wanted=WANTED, **more):
    return parse_files(without_thinking(tidy(text)), wanted, max_bytes=LIMIT, **more)


@pytest.mark.parametrize(
    ("file", "holds", "plan"),
    [
        ("several_blocks.md", '"""A convolution."""', "Plan: I'd first look at the shapes"),
        ("heading_name.md", "DEPTH = 3", "Use a tree of gates."),
        ("no_fence.md", "def build():", "Here is my solution."),
        ("inner_fences.md", 'NAME = "inner"', "A module with a documented example."),
        ("forgotten_end.md", 'NAME = "forgotten"', "First the file:"),
        ("attributes.md", 'NAME = "attributes"', "Some plan."),
        ("harmony.md", 'NAME = "harmony"', "A short plan."),
    ],
)
def test_messy_answers_are_read(file, holds, plan):
    reading = read(ask(None), tidy((ANSWERS / file).read_text()))
    assert reading.problems == ()
    assert list(reading.files) == ["model.py"]
    text = reading.files["model.py"]
    assert holds in text
    compile(text, "model.py", "exec")
    assert "Let me know" not in text
    assert "Expected" not in text
    assert reading.note.startswith(plan)
    assert "\n" not in reading.note


def test_windows_line_ends_and_lists_are_read():
    text = "1. Do it:\r\n\r\n    ```python\r\n    import torch\r\n    X = 1\r\n    ```\r\n"
    assert parsed(text).files == {"model.py": "import torch\nX = 1\n"}


@pytest.mark.parametrize(
    "name",
    ["../model.py", "/etc/cron.d/model.py", "..\\model.py", "sub/model.py", "helper.py",
     "~/model.py", "model.py/../../x.py", "stdout.log", "prompt.md"],
)  # fmt: skip
def test_names_that_the_task_does_not_list_are_refused_and_told(name):
    result = parsed(f"Plan.\n\n```python {name}\nimport torch\n```\n")
    assert result.files == {}
    assert name in " ".join(result.problems)
    both = parsed(f"```python {name}\nX = 1\n```\n\n```python model.py\nY = 2\n```\n")
    assert both.files == {"model.py": "Y = 2\n"}


def test_a_gigantic_file_is_refused_with_its_size():
    result = parsed("```python model.py\nX = '" + "a" * 70_000 + "'\n```\n")
    assert result.files == {}
    assert "70,0" in result.problems[0]
    assert "65,536" in result.problems[0]


def test_code_that_does_not_compile_is_told_with_its_line():
    result = parsed("```python model.py\nimport torch\ndef f(:\n```")
    assert "line 2" in result.problems[0]


def test_several_files_need_their_names_and_come_last_first():
    wanted = ("a.py", "b.py")
    text = "**a.py**\n```\nA = 1\n```\n```python b.py\nB = 1\n```\nBetter:\n\n"
    text += "```python a.py\nA = 2\n```"
    assert parsed(text, wanted).files == {"a.py": "A = 2\n", "b.py": "B = 1\n"}
    assert "b.py is missing" in parsed("```python a.py\nA = 1\n```", wanted).problems[0]
    kept = parsed("```python a.py\nA = 1\n```", wanted, kept={"a.py": "A = 0\n", "b.py": "B = 0\n"})
    assert kept.files == {"a.py": "A = 1\n", "b.py": "B = 0\n"}
    # An answer without any file cannot be used, even if all files could be kept.
    assert parsed("I would change nothing.", wanted, kept=kept.files).files == {}


def test_an_answer_that_was_cut_off_in_a_block_is_not_whole_even_if_it_compiles():
    text = "```python model.py\nimport torch\nX = 1\n"
    assert parsed(text).problems == ()
    assert "cut off" in parsed(text, cut=True).problems[0]
    assert parsed(text + "```\n\nThe end wa", cut=True).problems == ()


FILE = "import torch\n\n\nclass CustomEncoder(torch.nn.Module):\n    WHICH = {}\n"
DEMO = "from model import CustomEncoder\n\nmodel = CustomEncoder(16)\n" + "print(model)\n" * 30
NESTED = '    """\n    ```python\n    x = 1\n    ```\n    """\n'
MECHANISM = {"holds": ("CustomEncoder",)}


def block(text: str, info: str = "python", before: str = "") -> str:
    return f"{before}\n\n```{info}\n{text}```\n\n"


@pytest.mark.parametrize(
    ("answer", "which"),
    [
        # A short demo, the file, shell commands, and a longer demo.
        (block("x = 1\n") + block(FILE.format(1)) + block("pip install x\n" * 40, "bash")
         + block(DEMO), 1),
        (block(DEMO, before="Use `model.py`:") + block(FILE.format(2)), 2),
        (block(FILE.format(3)) + block(DEMO, before="Then, with `model.py`:"), 3),
        (block(FILE.format(4)) + block("python model.py\n", "bash", "Run `model.py`:"), 4),
        (block(FILE.format(5) * 3) + block(FILE.format(6), before="Shorter, the final one."), 6),
        (block(FILE.format(7), "python model.py")
         + block("    def forward(self, x):\n        return x\n", "python model.py"), 7),
        (block(FILE.format(8), "python model.py") + block("-import torch\n+import x\n",
         "diff model.py"), 8),
        (block(FILE.format(9), "py3") + block(DEMO, "python3.11"), 9),
        (block(FILE.format(10), "none") + block(DEMO, ""), 10),
        (block(FILE.format(11), "python ./model.py") + block(DEMO), 11),
        (block(DEMO) + block(FILE.format(12)).replace("```", "~~~"), 12),
        ((block(DEMO) + block(FILE.format(13))).replace("\n", "\r\n"), 13),
        (block(DEMO) + block(FILE.format(14) + NESTED), 14),
        (block(DEMO) + block(FILE.format(15)).rstrip("`\n"), 15),
    ],
)  # fmt: skip
def test_of_several_blocks_the_one_that_defines_what_the_task_asks_for_is_taken(answer, which):
    result = parsed(answer, **MECHANISM)
    assert result.problems == ()
    assert f"WHICH = {which}\n" in result.files["model.py"]


def test_of_several_blocks_a_program_is_the_one_that_calls_what_the_task_asks_for():
    script = "from prepare import evaluate_bpb\nSCORE = evaluate_bpb(model, tokenizer, 64)\n"
    note = "from prepare import evaluate_bpb  # given\n" + "x = 1\n" * 50
    result = parsed(block(script) + block(note), ("train.py",), holds=("evaluate_bpb()",))
    assert (result.files, result.problems) == ({"train.py": script}, ())
    (why,) = parsed(block(note), ("train.py",), holds=("evaluate_bpb()",)).problems
    assert "train.py calls no `evaluate_bpb()`" in why


def test_an_answer_without_what_the_task_asks_for_is_told_so_and_a_mistake_in_it_first():
    (why,) = parsed(block(DEMO) + block("x = 1\n"), **MECHANISM).problems
    assert "model.py defines no `CustomEncoder`" in why
    (why,) = parsed(block(FILE.format("(")) + block(DEMO), **MECHANISM).problems
    assert "does not compile: line 5" in why
    # The last block was cut off, so what it was meant to hold is unknown: it is not ignored.
    cut = block(FILE.format(1), "python model.py") + "```python model.py\nimport torch\n"
    assert "not whole" in parsed(cut, cut=True, **MECHANISM).problems[0]
    assert "WHICH = 1" in parsed(cut, **MECHANISM).files["model.py"]
    strange = parsed(block(FILE.format(1), "python src/model.py") + block(DEMO), **MECHANISM)
    assert "src/model.py" in strange.problems[1]


@pytest.mark.parametrize(
    "task", [t for t in OURS if not t.definition.sequence], ids=lambda task: task.name
)
def test_every_reference_design_holds_what_its_task_says(task):
    assert task.definition.holds
    assert task.designs()
    for design in task.designs():
        assert syntax.find_problems(design.files, list(design.files), task.definition.holds) == []


@pytest.mark.parametrize(
    "source",
    ["(" * 100_000, "-" * 200_000 + "1", "a" + ".a" * 100_000, "\0", "f'{" * 50_000,
     "if a: pass\n" + "elif a: pass\n" * 20_000, "9" * 200_000],
)  # fmt: skip
def test_hostile_nesting_does_not_reach_our_interpreter(source):
    (told,) = syntax.find_problems(
        {"model.py": source, "notes.txt": "("}, ["model.py", "notes.txt"], ()
    )
    assert told.startswith("model.py does not compile")


def test_unfinished_thinking_is_no_answer():
    assert read(ask(None), "<think>I could write\n```python\nX = 1\n```\n").problems == (
        "It is empty.",
    )


# Lines and marks that have a meaning for the parser, mixed with arbitrary text.
PIECES = st.one_of(
    st.text(st.characters(), max_size=40),
    st.sampled_from(
        ["\n", "```", "````", "~~~", "```python design.md", "```python ../../x.md", "design.md",
         "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "<<<<<<<< SEARCH", "A = 0", "<think>",
         "</think>", "<|channel|>final<|message|>", "\x1b[2J", "\ud800", "\0", "\r\n", "    ```",
         "import torch", "def f(): pass", '"""', "'''", "`", "# design.md", "File: /etc/passwd"]
    ),
)  # fmt: skip
MESS = st.lists(st.one_of(PIECES, st.just("\n")), max_size=60).map("".join)


@given(text=MESS, cut=st.booleans(), edits=st.booleans(), improve=st.booleans())
def test_whatever_a_model_says_only_the_tasks_files_come_out(text, cut, edits, improve):
    node = scored(0, score=0.5, files={"design.md": "A = 0\n\nB = 1\n"})
    request = ask(None, "improve" if improve else "draft", (0,) if improve else (), [node])
    # Not a Python file: examples then need no round trip to the process that compiles sources.
    definition = request.task.definition.model_copy(update={"files": ("design.md",)})
    request = replace(request, task=Task(request.task.folder, definition, "fixed"))
    reading = read(request, tidy(text), cut=cut, edits=edits)
    assert set(reading.files) <= set(request.task.definition.files)
    assert sum(len(t.encode()) for t in reading.files.values()) <= LIMIT
    assert reading.files or reading.problems
    assert "\n" not in reading.note
    assert len(reading.note) <= 300
    assert sum(map(len, reading.problems)) < 250 * 500
    assert all(c in "\n\t" or not ("\0" <= c < " ") for t in reading.files.values() for c in t)


LINES = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp")), max_size=30),
    st.sampled_from(["```", "````python design.md", "~~~", "    ```", "`" * 20, "=======",
                     "<<<<<<< SEARCH", ">>>>>>> REPLACE", "========", "</think>", "# b.txt", ""]),
)  # fmt: skip
TEXTS = st.lists(LINES, min_size=1, max_size=20).map(lambda lines: "".join(f"{x}\n" for x in lines))


@given(a=TEXTS, b=TEXTS)
def test_files_as_prompts_show_them_are_parsed_back_exactly(a, b):
    files = {name: text for name, text in (("design.md", a), ("b.txt", b)) if text.strip()}
    answer = "My plan.\n\n" + show_files(files) + "\n\nThat is it.\n"
    assert parsed(answer, tuple(files)).files == files


def show_edit(name: str, search: list[str], replace: list[str]) -> str:
    runs = [len(line.strip()) - len(line.strip().lstrip("<=>")) for line in search + replace]
    width = max(7, *(n + 1 for n in runs))
    lines = [
        name,
        "<" * width + " SEARCH",
        *search,
        "=" * width,
        *replace,
        ">" * width + " REPLACE",
    ]
    return "\n".join(lines) + "\n"


@given(
    data=st.data(), lines=st.lists(LINES, min_size=1, max_size=12), new=st.lists(LINES, max_size=5)
)
def test_edits_are_parsed_back_and_applied_exactly(data, lines, new):
    begin = data.draw(st.integers(0, len(lines) - 1))
    end = data.draw(st.integers(begin + 1, len(lines)))
    text = "\n".join(lines)
    edits, problems = find_edits(show_edit("model.py", lines[begin:end], new), WANTED)
    assert problems == []
    (edit,) = edits
    assert (list(edit.search), list(edit.replace)) == (lines[begin:end], new)
    places = [i for i in range(len(lines)) if lines[i : i + end - begin] == lines[begin:end]]
    made = apply_edits({"model.py": text}, edits, max_bytes=LIMIT)
    if len(places) > 1 or not any(line.strip() for line in edit.search):
        assert made.files == {}
    elif new != lines[begin:end]:
        assert made.files == {"model.py": "\n".join(lines[:begin] + new + lines[end:])}


BASE = {"model.py": "RATE = 0.2\n\ndef bias():\n    return 1\n\nA = 1\nB = 2\nA = 1\n"}


def edited(text: str, files=BASE):
    edits, problems = find_edits(text, list(files))
    return problems or apply_edits(files, edits, max_bytes=LIMIT)


def test_edits_in_fences_are_applied_and_a_name_holds_for_the_next():
    made = edited((ANSWERS / "edits_in_fence.md").read_text())
    assert made.files == {"model.py": "RATE = 0.1\n\nA = 1\nB = 2\nA = 1\n"}


@pytest.mark.parametrize(
    ("search", "replace", "why"),
    [
        (["RATE = 0.3"], ["RATE = 0.1"], "does not stand in model.py"),
        (["rate = 0.2"], ["RATE = 0.1"], "does not stand in model.py"),
        (["ATE = 0.2"], ["RATE = 0.1"], "does not stand in model.py"),
        (["A = 1"], ["A = 2"], "more than once"),
        ([""], ["A = 2"], "empty"),
        (["B = 2"], ["B = 2"], "change nothing"),
    ],
)
def test_edits_that_are_not_exact_change_nothing(search, replace, why):
    good = show_edit("model.py", ["RATE = 0.2"], ["RATE = 0.2"])
    made = edited(good + show_edit("model.py", search, replace))
    assert made.files == {}
    assert why in made.problems[0]


def test_edits_must_not_overlap_name_strangers_or_lack_a_part():
    twice = show_edit("model.py", ["A = 1", "B = 2"], ["C"]) + show_edit("x.py", ["B = 2"], ["D"])
    assert "names x.py" in edited(twice).problems[0]
    overlap = twice.replace("x.py\n<", "model.py\n<")
    assert "another block changes" in edited(overlap).problems[0]
    assert "=======" in edited("<<<<<<< SEARCH\nA = 1\n>>>>>>> REPLACE\n")[0]
    assert "REPLACE" in edited("<<<<<<< SEARCH\nA = 1\n=======\nB\n<<<<<<< SEARCH\n")[0]
    two = {**BASE, "other.py": "A = 1\n"}
    assert "names no file" in edited(show_edit("", ["B = 2"], ["C"]), two).problems[0]


NO_FILE, NOTHING, BLANK = "It holds no file.", "It is empty.", "model.py is empty."


@pytest.mark.timeout(60)
def test_parsing_hostile_answers_takes_no_long_time():
    for hostile, *why in (
        ("```a\n" * 20_000, NO_FILE, NO_FILE),
        ("<<<<<<< SEARCH\n=======\n" * 20_000, NO_FILE, "Block 1 has no line >>>>>>> REPLACE."),
        ("`" * 1_000_000, BLANK, NO_FILE),
        (" " * 500_000 + "x", NO_FILE, NO_FILE),
        ("```python model.py\n" + "\n" * 50_000, BLANK, BLANK),
        ("*" * 100_000 + "\n```\n", BLANK, NO_FILE),
        ("<<<<<<< SEARCH\n" + "\n" * 100_000 + "x\n=======\n>>>>>>> REPLACE\n",
         NO_FILE, "Block 1: its search does not stand in model.py"),
        ("<think>" * 100_000, NOTHING, NOTHING),
    ):  # fmt: skip
        node = scored(0, score=0.5, files={"model.py": "\n" * 60_000})
        for edits, said in zip((False, True), why, strict=True):
            made = read(ask(None, "improve", (0,), [node]), tidy(hostile), edits=edits)
            assert made.files == {}
            assert made.problems[0].startswith(said)
