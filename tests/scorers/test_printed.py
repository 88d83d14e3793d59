"""What a script prints about its training: a claim, read from bytes that may be hostile."""

import pytest

from scorers import claims, evaluate, output
from scorers.judge import Verdict
from scorers.output import LINE_BYTES, LOG_BYTES, STEP, Output
from tasks.submissions import SUBMISSIONS


def told(*chunks: bytes):
    output = Output()
    for chunk in chunks:
        output.feed("stdout", chunk)
    return output.progress()


PUBLIC = (
    b"\rstep %05d (3.4%%) | loss: 5.123456 | lrm: 1.00 | dt: 712ms | tok/sec: 736,003 | "
    b"mfu: 40.1%% | epoch: 1 | remaining: 290s    "
)


@pytest.mark.parametrize(
    ("printed", "step", "total", "loss", "share"),
    [
        (PUBLIC % 11 + PUBLIC % 12, 12, 0, 5.123456, 0.034),
        (b"step 12 34% loss 5.1234 epoch 1\n", 12, 0, 5.1234, 0.34),
        (b"Step: 3/40, Loss = 0.5\nsaving\n", 3, 40, 0.5, 0.075),
        (b"step 7\n", 7, 0, None, 0.0),
        (b"step 40/40\n", 40, 40, None, 1.0),
        (b"step 50/40 loss 1\n", 50, 0, 1.0, 0.0),
        (b"step 1 999% loss 1\n", 1, 0, 1.0, 1.0),
        (b"step 1 loss nan\n", 1, 0, None, 0.0),
        (b"step 5 loss 2\n\xff\xfe\x1b[2J\n", 5, 0, 2.0, 0.0),
    ],
)
def test_the_last_line_on_a_step_is_read_as_scripts_print_it(printed, step, total, loss, share):
    assert told(printed) == {
        "step": step,
        "total": total,
        "loss": loss,
        "share": pytest.approx(share),
    }


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"num_steps: 12\n",
        b"steps 12\n",
        b"step " + b"9" * 5000 + b"\n",
        b"step one\n",
        b"misstep 4\n",
        b"step 12 loss 1\n" + b"x" * 5000,
    ],
)
def test_what_is_no_such_line_near_the_end_says_nothing(printed):
    assert told(printed) is None


def test_numbers_stay_bounded_and_of_a_megabyte_of_them_only_the_end_is_searched(monkeypatch):
    searched = []

    class Counted:
        def search(self, line):
            searched.append(len(line))
            return STEP.search(line)

    monkeypatch.setattr(output, "STEP", Counted())
    found = told(b"step 999999999 " + b"loss: 1" * 200_000, b"\nstep 4 loss " + b"9" * 9 + b"\n")
    assert found == {"step": 4, "total": 0, "loss": 999_999_999.0, "share": 0.0}
    assert told(b"loss: 1" * 200_000) is None
    assert 0 < sum(searched) <= 2 * LINE_BYTES


def test_it_is_found_at_the_end_of_an_output_that_is_kept_in_parts():
    assert told(b"step 1 loss 9\n" + b"." * LOG_BYTES, b"\nstep 2 loss 8\n")["step"] == 2


def test_a_flood_is_kept_in_bounded_memory_by_its_beginning_and_its_end():
    output = Output()
    output.feed("stdout", b"begin")
    for _ in range(100):
        output.feed("stdout", b"." * 100_000)
        assert len(output._head) + len(output._tail._kept) <= 3 * LOG_BYTES
    output.feed("stderr", b"the end")
    kept = output.text()
    assert kept.startswith(b"begin.")
    assert kept.endswith(b".the end")
    left_out = 10_000_012 - 2 * LOG_BYTES
    assert f"\n… {left_out:,} bytes left out …\n".encode() in kept


def test_the_last_lines_of_a_short_output_are_the_last_twelve():
    output = Output()
    output.feed("stdout", b"".join(b"line %d\n" % number for number in range(20)))
    assert output.last_lines() == "\n".join(f"line {number}" for number in range(8, 20))


def test_a_script_in_a_sandbox_is_followed_while_it_trains(score_toy, monkeypatch):
    """After each step the script waits for a file that shows that the step was observed."""
    monkeypatch.setattr(evaluate, "POLL_S", 0)
    seen = []

    def observe(what, details):
        if what == "progress" and details not in seen:
            seen.append(details)
            (train,) = score_toy.data.glob("toy/test-*/train")
            (train / f"seen-{details['step']}").touch()

    score = score_toy(
        "import numpy as np, os, time\n"
        "for step in range(3):\n"
        "    print(f'\\rstep {step:05d} ({20 * step}%) | loss: {5 - step}.5',"
        " end='', flush=True)\n"
        "    while not os.path.exists(config['paths']['train'] + f'/seen-{step}'):\n"
        "        time.sleep(0.01)\n"
        "link.progress = lambda *a, **k: None\n"
        "def predict(t):\n"
        "    return np.eye(4, dtype=np.float32)[t[:, 0] - 1]\n",
        observe=observe,
    )
    assert score.valid, score.message
    assert seen == [
        {"step": step, "total": 0, "loss": 5.5 - step, "share": step / 5} for step in range(3)
    ]


@pytest.mark.parametrize(
    ("writes", "printed"), [("program", {"val_bpb": "1.5"}), ("mechanism", {})]
)
def test_what_a_program_prints_at_its_end_is_its_claim(
    writes: str, printed: dict[str, str]
) -> None:
    output = Output()
    output.feed("stdout", b"step 1\n---\nval_bpb: 1.5\n")
    told = {"parameters": 7, "device_buffer": "3f", "frozen": {"bytes": 9}}
    verdict = Verdict(0.5, 0.1, (), None, "", told, 1.0, 1.0, 1.0)
    submission = SUBMISSIONS.find(writes)
    assert claims.kept(submission, verdict, output) == {"parameters": 7, **printed}
    assert claims.kept(submission, None, output) == printed
