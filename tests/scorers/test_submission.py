"""The configurable variant: what a submission may set, and what a rejection says."""

import pytest

from scorers.score import Reason
from scorers.submission import Rejected, read
from tasks.spec import find_task


def settings(source: str) -> dict:
    return read(find_task("toy-configurable"), "test", {"model.py": source}).settings


@pytest.mark.usefixtures("in_process")
def test_what_is_set_within_bounds_replaces_the_profiles_value_and_the_rest_stays():
    merged = settings("import os\nHYPERPARAMETERS = {'steps': 7, 'rate': 0.5}\n")
    assert merged == {"batch_size": 64, "steps": 7, "rate": 0.5}
    assert settings("x = 1") == {"batch_size": 64, "steps": 20}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("literal", "words"),
    [
        ("{'steps': 41}", "an integer from 1 to 40"),
        ("{'steps': 7.0}", "an integer from 1 to 40"),
        ("{'steps': True}", "an integer from 1 to 40"),
        ("{'rate': float('nan')}", "literal"),
        ("{'rate': 1e999}", "a number from 0.0001 to 1"),
        ("{'rate': '0.5'}", "a number from 0.0001 to 1"),
        ("{'style_of': 'c'}", "one of a, b"),
        ("{'batch_size': 1}", "known are steps, rate, style_of"),
        ("{'steps': [1]}", "an integer"),
        ("{1: 2}", "string keys"),
        ("dict(steps=3)", "literal"),
        ("[1, 2]", "literal"),
        ("__import__('os').system('true')", "literal"),
    ],
)
def test_what_is_out_of_bounds_or_no_literal_is_rejected_with_what_is_allowed(literal, words):
    with pytest.raises(Rejected) as caught:
        settings(f"HYPERPARAMETERS = {literal}")
    assert caught.value.reason == Reason.BAD_HYPERPARAMETERS
    assert words in caught.value.message


def test_the_chosen_values_reach_the_runner(score_toy):
    source = """
import numpy as np
HYPERPARAMETERS = {"steps": 3, "rate": 0.25}
print("given", config["settings"]["steps"], config["settings"]["rate"])
def predict(tokens):
    return np.zeros((len(tokens), 4), np.float32)
"""
    score = score_toy(source, task=find_task("toy-configurable"))
    assert score.valid, score.message
    assert b"given 3 0.25" in score_toy.log.read_bytes()
