"""A model that arranges primitives: what it is told, what it sees of earlier ones, what is read."""

import pytest

from harness.core.writing import Writing
from harness.operators.asking import Operators
from harness.operators.model_agent import ModelAgent
from tests.operators.model import Scripted, ask, scored

NAME = "architecture.txt"
TREE = [
    scored(0, score=0.41, note="in turn", files={NAME: "A M A M\n"}),
    scored(1, valid=False, reason="interface_error", message="wants 4", files={NAME: "A M\n"}),
    scored(2, "improve", (0,), score=0.52, note="more mixing", files={NAME: "A A A M\n"}),
]


def request(replies, operator="draft", parents=()):
    return ask(Scripted(replies), operator, parents, TREE, task="compose/mad", steps=9)


def test_it_is_told_the_primitives_the_length_and_that_nothing_runs():
    made = Operators(Writing()).request(request([]), {}, whole=True)
    assert "A model is a stack of 4 layers." in made.system
    assert "- `A`: causal self-attention, 2 heads" in made.system
    assert "- 4 KiB of text; none of it is executed" in made.system
    assert "MB of memory" not in made.system
    assert "{" not in made.system.replace("{{", "")
    assert f"````{NAME}\n" in made.system


def test_its_memory_holds_the_architectures_with_their_scores():
    text = Operators(Writing()).request(request([]), {}, whole=True).turns[0].text
    assert "node 0, draft: score 0.41. in turn Submitted: A M A M\n" in text
    assert "node 2, improve of 0: score 0.52. more mixing Submitted: A A A M\n" in text
    debug = Operators(Writing()).request(request([], "debug", (1,)), {}, whole=True).turns[0].text
    assert "Submitted: A M\n" in debug


@pytest.mark.parametrize(
    ("replies", "written"),
    [
        (["More.\n\n````architecture.txt\nA, A\r\nM A\n````\n"], "A A M A\n"),
        (["", "AAMA"], "A A M A\n"),
        (["```\nA A M\n```"], "A A M\n"),
        (["```\nattention, mlp\n```"], "attention, mlp\n"),
    ],
)
def test_its_answer_becomes_the_file(replies, written):
    """Of a wrong length, or no architecture at all: then the judge says what is wrong."""
    answer = ModelAgent("m").write(request(replies))
    assert answer.files == {NAME: written}
