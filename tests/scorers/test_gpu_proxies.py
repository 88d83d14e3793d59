"""On a GPU: the same training gives the same bits, and a run trains what waits together."""

import json

import pytest
from calling import call

from tasks.spec import find_task


@pytest.mark.gpu
@pytest.mark.timeout(240)
def test_the_same_training_gives_the_same_bits(tmp_path):
    from scorers.proxies.protocol import ProxyJob
    from scorers.proxies.trainer import train
    from scorers.proxies.worker import read_recipe, read_task

    task = find_task("compose/mad-hybrid")
    data, manifest = task.prepare("short", tmp_path, lambda *_: None)
    settings = {**task.profile("short").settings, "epochs": 8}
    strings = (("A", "M", "Mb", "M") * 4, ("M",) * 16, ("Mb", "Mb", "A", "A") * 4)
    job = ProxyJob(
        architectures=strings, seeds=(1, 1, 1), train=str(data / "train"),
        held_out=str(data / "search"), shape=manifest.shape, settings=settings, gpu="", threads=1,
    )  # fmt: skip
    part, recipe = read_task(job, "memorization"), read_recipe(settings)

    def trained(*chosen):
        return train(part, chosen, [1] * len(chosen), recipe, device="cuda", report=lambda *_: None)

    first = trained(*strings)
    assert trained(*strings) == first
    alone = trained(strings[0])[0]
    print("alone", alone.accuracy, "together", first[0].accuracy, "loss", alone.loss, first[0].loss)
    assert abs(alone.accuracy - first[0].accuracy) < 0.05
    assert first[0].accuracy > first[1].accuracy


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
