"""The separate process that answers questions: whatever happens to it, the next one is answered."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from harness.base.answering import AnsweringProcess

ECHO = """
import json, os, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked == "die":
        os._exit(3)
    if asked == "hang":
        time.sleep(600)
    if asked == "half":
        print('[1, ', end="", flush=True); time.sleep(600)
    if asked == "words":
        print("no JSON", flush=True)
    if asked == "fill":
        bytearray(1 << 32)
    print(json.dumps([os.getpid(), asked]), flush=True)
"""


@pytest.fixture
def process():
    with closing(AnsweringProcess("-c", ECHO, timeout_s=60, most_bytes=1 << 30)) as made:
        yield made


def test_one_process_answers_all_questions_whatever_their_size(process):
    questions = ["a", {"b": [1.5, None]}, "line\nbreak ü 🙂", "x" * 3_000_000]
    answers = [process.ask(question) for question in questions]
    assert [answer for _, answer in answers] == questions
    assert len({pid for pid, _ in answers}) == 1


@pytest.mark.parametrize("bad", ["die", "words", "fill", "hang", "half"])
def test_after_a_question_that_it_did_not_survive_another_one_is_asked(process, bad):
    pid, _ = process.ask("before")
    process._timeout_s = 0.05 if bad in ("hang", "half") else 60
    with pytest.raises((OSError, ValueError)):
        process.ask(bad)
    process._timeout_s = 60
    other, answer = process.ask("after")
    assert (answer, other != pid) == ("after", True)


def test_closed_it_is_gone_and_the_next_question_starts_another(process):
    pid, _ = process.ask(1)
    process.close()
    process.close()
    assert process._process is None
    assert process.ask(2)[0] != pid


def test_threads_get_their_own_answers(process):
    with ThreadPoolExecutor(8) as threads:
        assert [answer for _, answer in threads.map(process.ask, range(100))] == list(range(100))
