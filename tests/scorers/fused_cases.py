"""Compares proxies of our own kernels with those of torch; prints one JSON line per comparison.

    TRITON_INTERPRET=1 python tests/scorers/fused_cases.py cpu 3     (Triton's interpreter)
    python tests/scorers/fused_cases.py cuda 4

The number says how many shapes are compared.
It is a separate program because Triton reads that variable when it is first imported. The limits
are in test_fused.py. The interpreter computes in float32, a GPU in bfloat16.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from scorers.proxies.blocks import Recipe
from scorers.proxies.population import Population
from scorers.proxies.trainer import nats

SMALL = Recipe(
    dim=16, heads=2, mlp_dim=34, state=4, expansion=1.25, head_dim=4, convolution=4,
    epochs=1, batch_size=4, learning_rate=0.02, weight_decay=0.1,
)  # fmt: skip
PAPER = replace(SMALL, dim=128, heads=16, mlp_dim=258, head_dim=16)
STRINGS = [("A", "M", "Mb"), ("M", "Mb", "A"), ("M", "A", "M")]
SEEDS = [1, 1, 2]
# Ends of rows lie before, at and after the ends of tiles of 64 tokens.
CPU_SHAPES = [(70, 1, 3, False), (130, 1, 11, False), (12, 2, 20, True)]
GPU_SHAPES = [(127, 32, 32, False), (256, 32, 16, False), (32, 128, 17, True), (300, 5, 300, False)]


def made(
    strings, seeds, recipe, tokens, targets, vocabulary, *, device, short, from_last, sick=None
):  # fmt: skip
    """Return logits, and the gradient of each candidate's loss by candidate, layer and name."""
    population = Population(
        strings, seeds, vocabulary, from_last, recipe,
        device=device, dtype=torch.float32, short=short,
    )  # fmt: skip
    if sick is not None:
        with torch.no_grad():
            population.ends["embedding"][sick] = torch.nan
    logits = population.logits(tokens)
    totals, _ = nats(logits, targets)
    totals.sum().backward()
    gradients = {}
    for i in range(len(strings)):
        for name, weight in population.ends.items():
            gradients[i, "ends", name] = weight.grad[i]
        for layer, groups in enumerate(population.layers):
            for group in groups:
                members = group.members.tolist()
                if i in members:
                    for name, weight in group.weights.items():
                        gradients[i, layer, name] = weight.grad[members.index(i)]
    with torch.no_grad():
        again = population.logits(tokens)
    # A kernel that keeps nothing for the way back is compiled on its own.
    assert sick is not None or error(again, logits) < (1e-6 if device == "cpu" else 1e-2)
    return logits.detach(), gradients


def error(found, exact):
    return float((found.double() - exact.double()).norm() / exact.double().norm())


def main(device, count):
    on_cpu = device == "cpu"
    recipe, short = (SMALL, torch.float32) if on_cpu else (PAPER, torch.bfloat16)
    for length, rows, vocabulary, from_last in (CPU_SHAPES if on_cpu else GPU_SHAPES)[:count]:
        draw = torch.Generator().manual_seed(length)
        tokens = torch.randint(vocabulary, (3, rows, length), generator=draw).to(device)
        targets = torch.randint(vocabulary, (3, rows, length), generator=draw)
        targets[torch.rand(targets.shape, generator=draw) < 1 / 3] = -100
        targets = targets.to(device)
        ours = replace(recipe, kernels="triton")
        given = {"vocabulary": vocabulary, "device": device, "from_last": from_last}

        def run(recipe, short, chosen=range(3), *, tokens=tokens, targets=targets, given=given,
            **more,
        ):  # fmt: skip
            chosen = list(chosen)
            return made(
                [STRINGS[i] for i in chosen], [SEEDS[i] for i in chosen], recipe, tokens[chosen],
                targets[chosen], short=short, **given, **more,
            )  # fmt: skip

        exact, exact_gradients = run(recipe, torch.float32)
        found, gradients = run(ours, short)
        assert found.shape == exact.shape
        assert found.dtype == exact.dtype
        told = {"length": length, "logits": error(found, exact)}
        errors = {key: error(gradients[key], value) for key, value in exact_gradients.items()}
        worst = max(errors, key=errors.get)
        told |= {"gradients": len(errors), "worst": errors[worst], "where": str(worst)}
        _, theirs = run(recipe, short)  # how much torch's own products in the short type lose
        told["torch"] = max(error(theirs[key], value) for key, value in exact_gradients.items())
        # Alone, and among others in another order: the same bits.
        differing = []
        for chosen in ([0], [2, 1]):
            logits, alone = run(ours, short, chosen)
            for place, i in enumerate(chosen):
                if not torch.equal(logits[place], found[i]):
                    differing.append(f"{chosen}: logits of {i}")
                for (j, *where), value in alone.items():
                    if j == place and not torch.equal(value, gradients[i, *where]):
                        differing.append(f"{chosen}: {i} {where}")
        # One whose numbers are none hurts no other.
        logits, beside = run(ours, short, sick=1)
        assert logits[1].isnan().all()
        differing += [f"beside NaN: logits of {i}" for i in (0, 2) if not logits[i].equal(found[i])]
        differing += [
            f"beside NaN: {key}" for key, value in beside.items()
            if key[0] != 1 and not torch.equal(value, gradients[key])
        ]  # fmt: skip
        print(json.dumps({**told, "differing": differing}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
