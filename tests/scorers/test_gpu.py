"""On a GPU: real designs are trained and judged in the sandbox, which sees only one device."""

import pytest

from sandboxes.gpus import gpu_uuids
from scorers import audits
from scorers.evaluate import evaluate
from scorers.request import Request
from tasks.spec import find_task

SEES = """
import torch
assert torch.cuda.device_count() == 1, torch.cuda.device_count()
print("sees", torch.cuda.get_device_name(0), flush=True)
"""


@pytest.mark.gpu
@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", range(4))
def test_each_reference_design_trains_and_is_stateless_on_a_gpu(tmp_path, isolating, place):
    task = find_task("lra/listops")
    data, manifest = task.prepare("test", tmp_path, lambda *_: None)
    design = task.designs()[place]
    request = Request(
        task=task,
        profile="test",
        split="search",
        files={"model.py": design.files["model.py"] + SEES},
        data=data,
        manifest=manifest,
        training_seed=1,
        audit_seed="gpu",
        backend=isolating,
        gpus=gpu_uuids()[:1],
    )
    evaluated = evaluate(request)
    score = evaluated.score
    assert score.valid, score.message
    assert b"sees NVIDIA" in evaluated.log
    assert "NVIDIA" in str(score.conditions.hardware["gpu"])
    (spread,) = [a.value for a in score.audits if a.name == "statelessness"]
    print(design.name, "spread", spread)
    assert spread < audits.SPREAD_LIMIT / 100
