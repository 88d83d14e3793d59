"""On a GPU: what is trained beside a candidate changes no digit, and a run trains what waits."""

import json
import math
from random import Random

import pytest
from calling import call

from tasks.spec import find_task


@pytest.mark.gpu
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["memorization", "compression"])
def test_one_or_64_trained_together_give_the_same_digits(tmp_path, name):
    from scorers.proxies.protocol import ProxyJob
    from scorers.proxies.trainer import train
    from scorers.proxies.worker import read_recipe, read_task

    task = find_task("compose/mad-hybrid")
    data, manifest = task.prepare("short", tmp_path, lambda *_: None)
    settings = {**task.profile("short").settings, "epochs": 8}
    assert settings["kernels"] == "triton"
    rng = Random(5)
    strings = [tuple(rng.choices(("A", "M", "Mb"), k=16)) for _ in range(62)]
    strings += [("M",) * 16, ("A",) * 16]
    job = ProxyJob(
        architectures=tuple(strings), seeds=(1,) * 64, train=str(data / "train"),
        held_out=str(data / "search"), shape=manifest.shape, settings=settings, gpu="", threads=1,
    )  # fmt: skip
    part, recipe = read_task(job, name), read_recipe(settings)

    def trained(chosen):
        found = train(
            part, [strings[i] for i in chosen], [1] * len(chosen), recipe,
            device="cuda", report=lambda *_: None,
        )  # fmt: skip
        return dict(zip(chosen, found, strict=True))

    together = trained(range(64))
    for chosen in ([0], [63], [62], [5, 62, 3], range(40, 56)):
        for i, found in trained(chosen).items():
            every = together[i]
            assert (found.accuracy, found.macro, found.row_error) == (
                every.accuracy, every.macro, every.row_error
            )  # fmt: skip
            assert math.isclose(found.loss, every.loss, rel_tol=1e-6)  # a sum in another order
    print(sorted({found.accuracy for found in together.values()}))
    assert together[0].accuracy > together[62].accuracy


@pytest.mark.gpu
@pytest.mark.timeout(240)
def test_a_run_trains_what_waits_together(tmp_path):
    call(
        "run", "--task", "compose/mad", "--profile", "short", "--agent", "prior", "--steps", 4,
        "--parallel", 4, "--runs-dir", tmp_path, "--name", "a",
    )  # fmt: skip
    files = sorted((tmp_path / "a").glob("nodes/*/score.json"))
    scores = [json.loads(file.read_text()) for file in files]
    assert [score["valid"] for score in scores] == [True] * 4
    assert any(score["companions"] for score in scores)
    assert all("NVIDIA" in str(score["conditions"]["hardware"]["gpu"]) for score in scores)
    print([(score["score"], len(score["companions"]), score["seconds"]) for score in scores])
    print(scores[0]["conditions"]["gpus"])
