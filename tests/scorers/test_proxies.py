"""Proxies trained together equal proxies trained alone, and their blocks are what they are called.

Sizes are small and numbers double where equality is claimed to rounding.
"""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from plain_proxy import PlainProxy, cross_entropy, recurrence, train_alone

from scorers.proxies import population as models
from scorers.proxies import trainer
from scorers.proxies.blocks import BLOCKS, Recipe, dual, parameters, rotate
from scorers.proxies.population import Population
from scorers.proxies.trainer import TokenTask, counted, nats, order, ratio, train
from tasks import kinds

RECIPE = Recipe(
    dim=16, heads=2, mlp_dim=32, state=4, expansion=1.25, head_dim=4, convolution=4,
    epochs=2, batch_size=4, learning_rate=0.02, weight_decay=0.1,
)  # fmt: skip
PAPER = replace(RECIPE, dim=128, heads=16, mlp_dim=258, head_dim=16)
ONES = ("A", "M", "Mb")
STRINGS = [(a, b, c) for a in ONES for b in ONES for c in ONES][::-1][:16]
SEEDS = [3 + i % 3 for i in range(16)]
DOUBLE = {"device": "cpu", "dtype": torch.float64}
VOCABULARY, LENGTH = 8, 12


def quiet(step, steps):
    """Do nothing after a step."""


def rows_of(count, seed):
    """Return inputs and their next tokens, of which a third is not asked, and one row asks none."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(VOCABULARY, size=(count, LENGTH))
    targets = np.roll(inputs, -1, axis=1)
    targets[rng.random(targets.shape) < 1 / 3] = -100
    targets[1] = -100
    return inputs, targets


TASK = TokenTask("next", VOCABULARY, False, rows_of(10, 1), rows_of(9, 2))
SUMMARY = TokenTask("summary", VOCABULARY, True, rows_of(10, 1), rows_of(9, 2))


def population(strings, seeds, *, from_last=False, dtype=torch.float64, short=None):
    return Population(
        strings, seeds, VOCABULARY, from_last, RECIPE,
        device="cpu", dtype=dtype, short=short or dtype,
    )  # fmt: skip


def numbers(measured):
    values = (measured.accuracy, measured.row_error, measured.macro)
    return [*values, measured.loss, measured.loss_error, *(loss for _, loss in measured.curve)]


@pytest.fixture(scope="module")
def alone():
    """Return a function for what candidate ``i`` gets when trained alone; each is trained once."""
    known = {}

    def train_one(i, task):
        if (i, task.name) not in known:
            start = population(STRINGS, SEEDS, from_last=task.from_last)
            model = PlainProxy(start, i, STRINGS[i], RECIPE)
            known[i, task.name] = train_alone(model, task, SEEDS[i], RECIPE)
        return known[i, task.name]

    return train_one


@pytest.mark.parametrize(
    ("task", "chosen"),
    [(TASK, [7]), (TASK, [0, 4, 6, 9, 15]), (TASK, list(range(16))), (SUMMARY, [0, 4, 15])],
    ids=["1", "5", "16", "from the last state"],
)
def test_training_together_equals_training_alone(alone, task, chosen):
    together = train(
        task, [STRINGS[i] for i in chosen], [SEEDS[i] for i in chosen], RECIPE,
        report=quiet, **DOUBLE,
    )  # fmt: skip
    for i, measured in zip(chosen, together, strict=True):
        losses, loss, accuracy = alone(i, task)
        assert measured.loss == pytest.approx(loss, rel=1e-9)
        assert measured.accuracy == pytest.approx(accuracy, rel=1e-12)
        # So few steps that each is a point of the curve. It is kept in single precision.
        assert [step for step, _ in measured.curve] == list(range(1, len(losses) + 1))
        assert [point for _, point in measured.curve] == pytest.approx(losses, rel=1e-6)


def test_equal_strings_agree_with_vmap():
    """torch's own way to stack modules gives the same logits and gradients."""
    string, seeds = ("Mb", "A", "M"), [1, 2, 3]
    tokens, targets = (torch.from_numpy(rows) for rows in TASK.train)
    ours = population([string] * 3, seeds)
    models = [PlainProxy(ours, i, string, RECIPE) for i in range(3)]
    stacked, _ = torch.func.stack_module_state(models)

    def loss(weights):
        logits = torch.func.functional_call(models[0], weights, (tokens,))
        return cross_entropy(logits, targets), logits

    gradients, logits = torch.func.vmap(torch.func.grad(loss, has_aux=True))(stacked)
    found = ours.logits(tokens[None])
    totals, asked = nats(found, targets[None])
    (totals / asked).sum().backward()
    torch.testing.assert_close(found, logits)
    torch.testing.assert_close(ours.ends["embedding"].grad, gradients["ends.embedding"])
    for layer, (group,) in enumerate(ours.layers):
        for name, weight in group.weights.items():
            torch.testing.assert_close(weight.grad, gradients[f"layers.{layer}.{name}"])


def test_the_order_of_candidates_does_not_matter():
    strings, seeds = STRINGS[:5], [4, 4, 5, 6, 4]
    turn = [3, 0, 4, 2, 1]
    straight = train(TASK, strings, seeds, RECIPE, report=quiet, **DOUBLE)
    turned = train(
        TASK, [strings[i] for i in turn], [seeds[i] for i in turn], RECIPE, report=quiet, **DOUBLE
    )
    for place, i in enumerate(turn):
        assert numbers(turned[place]) == pytest.approx(numbers(straight[i]), rel=1e-9)


def test_equal_candidates_are_equal_and_other_seeds_are_not():
    string = ("A", "Mb", "M")
    first, again, other = train(TASK, [string] * 3, [1, 1, 2], RECIPE, report=quiet, **DOUBLE)
    assert numbers(first) == pytest.approx(numbers(again), rel=1e-9)
    assert first.loss != pytest.approx(other.loss, rel=1e-3)


def test_equal_seeds_share_weights_by_position_and_primitive():
    ours = population([("A", "M"), ("A", "A"), ("M", "A")], [1, 1, 1])
    other = population([("A", "M")], [2])
    first, second = ({g.primitive: g for g in layer} for layer in ours.layers)
    at_first, at_second = (g["A"].weights["qkv"] for g in (first, second))
    assert torch.equal(at_first[0], at_first[1])
    assert not torch.equal(at_first[0], at_second[0])
    assert torch.equal(ours.ends["head"][0], ours.ends["head"][2])
    assert not torch.equal(ours.ends["head"][0], other.ends["head"][0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_candidate_that_diverges_hurts_no_other(monkeypatch, bad):
    """The others are the same to the last bit as beside a sound one."""
    honest = models.draw

    def poisoned(weight, seed, *where):
        values = honest(weight, seed, *where)
        return values * bad if seed == 13 and "in" in where else values

    strings, seeds = [("Mb", "A"), ("Mb", "M"), ("Mb", "A"), ("M", "M")], [5, 13, 6, 7]
    sound = train(TASK, strings, seeds, RECIPE, device="cpu", report=quiet)
    monkeypatch.setattr(models, "draw", poisoned)
    sick = train(TASK, strings, seeds, RECIPE, device="cpu", report=quiet)
    assert math.isfinite(sound[1].loss)
    assert math.isnan(sick[1].loss)
    assert math.isnan(sick[1].loss_error)
    assert (sick[1].accuracy, sick[1].row_error, sick[1].macro, sick[1].curve) == (0, 0, 0, ())
    assert [sick[i] for i in (0, 2, 3)] == [sound[i] for i in (0, 2, 3)]


def scan_inputs(length):
    torch.manual_seed(1)
    values = torch.randn(2, 3, length, 5, 4, dtype=torch.float64)
    b, c = torch.randn(2, 2, 3, length, 4, dtype=torch.float64)
    steps = torch.rand(2, 3, length, 5, dtype=torch.float64)
    return values, b, c, steps, -16 * steps


@pytest.mark.parametrize("length", [1, 2, 40])
def test_masked_attention_equals_the_recurrence(length):
    inputs = scan_inputs(length)
    slow = torch.stack([recurrence(*(x[e] for x in inputs)) for e in range(2)])
    torch.testing.assert_close(dual(*inputs), slow)


def test_strong_decay_over_a_long_row_stays_finite():
    """A gap of 640 nats would overflow towards the future."""
    values, *others = (x.float().requires_grad_() for x in scan_inputs(80))
    dual(values, *others).sum().backward()
    assert all(x.grad.isfinite().all() for x in (values, *others))


@pytest.mark.parametrize("name", ONES)
def test_a_block_looks_at_no_later_token(name):
    (group,) = population([(name,)], [1]).layers[0]
    torch.manual_seed(1)
    x = torch.randn(1, 2, LENGTH, RECIPE.dim, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 7] += 1
    before, after = (BLOCKS[name].apply(y, group.weights, RECIPE) for y in (x, changed))
    same = (before == after).all(-1).flatten(0, 1).all(0)
    assert same[:7].all()
    assert not same[7]
    # Only a block that mixes tokens hands the change on.
    assert same[8:].all() == (name == "M")
    assert before.shape == x.shape


def test_rotary_products_depend_on_the_distance_alone():
    torch.manual_seed(1)
    query, key = torch.randn(2, 1, 8, dtype=torch.float64)
    products = rotate(query.expand(LENGTH, 8)) @ rotate(key.expand(LENGTH, 8)).T
    for distance in range(-LENGTH + 1, LENGTH):
        same = products.diagonal(distance)
        torch.testing.assert_close(same, same[:1].expand_as(same))
    assert products[0, 0] != pytest.approx(products[0, 1].item())


def test_the_numbers_of_weights_are_the_papers():
    counts = {name: parameters([name], PAPER) for name in ONES}
    assert counts == {"A": 65_536, "M": 66_048, "Mb": 64_774}
    assert max(counts.values()) <= 1.03 * min(counts.values())
    assert parameters(["A", "M", "A"], PAPER) == 2 * 65_536 + 66_048
    for name in ONES:
        (group,) = population([(name,)], [1]).layers[0]
        held = sum(w.numel() for key, w in group.weights.items() if key != "norm")
        assert held == parameters([name], RECIPE)


def test_initial_values_are_those_that_are_stated():
    weights = {
        name: models.draw(weight, 1, name) for name, weight in BLOCKS["Mb"].weights(PAPER).items()
    }
    steps = torch.nn.functional.softplus(weights["dt_bias"])
    assert ((steps > 0.000999) & (steps < 0.1001)).all()
    assert ((weights["A_log"] >= 0) & (weights["A_log"] <= math.log(16))).all()
    assert (weights["D"] == 1).all()
    assert weights["in"].abs().max() == pytest.approx(128**-0.5, rel=1e-3)
    assert weights["in"].std() == pytest.approx((3 * 128) ** -0.5, rel=0.02)
    embedding = population([("M",)], [1]).ends["embedding"]
    assert embedding.std().item() == pytest.approx(0.02, rel=0.2)


def test_each_epoch_shows_each_row_once_and_ends_with_a_short_batch():
    seen = []
    train(TASK, [("M",)], [1], RECIPE, device="cpu", report=lambda *step: seen.append(step))
    assert seen == [(step, 6) for step in range(1, 7)]
    batches = list(trainer._batches(TASK, [1], RECIPE, "cpu"))
    assert [inputs.shape[1] for _, inputs, _ in batches] == [4, 4, 2, 4, 4, 2]
    first, second = (
        torch.cat([inputs[0] for epoch, inputs, _ in batches if epoch == one]) for one in (0, 1)
    )
    assert not torch.equal(first, second)
    for shown in (first, second):
        assert sorted(shown.tolist()) == sorted(TASK.train[0].tolist())


def test_rows_are_shared_when_all_seeds_are_equal_and_only_then():
    (_, shared, _), *_ = trainer._batches(TASK, [1, 1], RECIPE, "cpu")
    (_, each, _), *_ = trainer._batches(TASK, [1, 2, 1], RECIPE, "cpu")
    assert shared.shape == (1, 4, LENGTH)
    assert each.shape == (3, 4, LENGTH)
    assert torch.equal(each[0], shared[0])
    assert torch.equal(each[1], torch.from_numpy(TASK.train[0][order(2, 0, 10)[:4]]))


def test_a_batch_that_asks_nothing_teaches_nothing():
    inputs, targets = TASK.train
    silent = replace(TASK, train=(inputs, np.full_like(targets, -100)))
    (measured,) = train(silent, [("A", "Mb")], [1], RECIPE, report=quiet, **DOUBLE)
    assert math.isfinite(measured.loss)
    assert [loss for _, loss in measured.curve] == [0.0] * 6


def test_the_curve_has_about_twenty_means():
    recipe = replace(RECIPE, epochs=15)
    (long,) = train(TASK, [("M",)], [1], recipe, report=quiet, **DOUBLE)
    steps = [step for step, _ in long.curve]
    assert len(steps) == 20
    assert steps[-1] == 45
    ends, losses = iter(steps), []
    model = PlainProxy(population([("M",)], [1]), 0, ("M",), recipe)
    each, _, _ = train_alone(model, TASK, 1, recipe)
    begin = 0
    for end in ends:
        losses.append(np.mean(each[begin:end]))
        begin = end
    assert [loss for _, loss in long.curve] == pytest.approx(losses, rel=1e-6)


def test_training_learns():
    """The next token of a counting row is certain, and found."""
    rows = (np.arange(40)[:, None] + np.arange(LENGTH + 1)) % VOCABULARY
    data = rows[:, :-1], rows[:, 1:]
    task = TokenTask("count", VOCABULARY, False, data, data)
    found = train(task, [("A", "M"), ("Mb", "M")], [1, 1], replace(RECIPE, epochs=6),
                  device="cpu", report=quiet)  # fmt: skip
    assert all(one.accuracy > 0.9 and one.curve[-1][1] < one.curve[0][1] for one in found)


@pytest.mark.parametrize("empty_rows", [0, 3])
def test_counts_agree_with_a_slow_count(empty_rows):
    rng = np.random.default_rng(1)
    predicted = rng.integers(5, size=(20, 6))
    targets = rng.integers(4, size=(20, 6)) * 2 % 7  # some classes never occur
    targets[rng.random(targets.shape) < 0.4] = -100
    targets[:empty_rows] = -100
    right, asked, by_class = [0] * 20, [0] * 20, {}
    for row in range(20):
        for guess, target in zip(predicted[row], targets[row], strict=True):
            if target != -100:
                asked[row] += 1
                right[row] += guess == target
                by_class.setdefault(target, []).append(guess == target)
    micro, error, macro = counted(predicted, targets)
    assert micro == pytest.approx(sum(right) / sum(asked))
    assert macro == pytest.approx(np.mean([np.mean(hits) for hits in by_class.values()]))
    residuals = [r - micro * n for r, n in zip(right, asked, strict=True)]
    # The residuals sum to zero, so their variance is about their mean.
    direct = math.sqrt(20) * np.std(residuals, ddof=1) / sum(asked)
    assert error == pytest.approx(direct)


def test_rows_of_equal_size_have_the_usual_standard_error():
    predicted, targets = np.random.default_rng(2).integers(2, size=(2, 30, 8))
    _, error, _ = counted(predicted, targets)
    rates = (predicted == targets).mean(1)
    assert error == pytest.approx(rates.std(ddof=1) / math.sqrt(30))
    assert math.isnan(counted(predicted[:1], targets[:1])[1])


def test_macro_is_not_micro():
    targets = np.array([[0, 0, 0, 1], [0, 0, 0, -100]])
    micro, _, macro = counted(np.zeros_like(targets), targets)
    assert (micro, macro) == (6 / 7, 0.5)


@pytest.mark.parametrize("batch_size", [2, 4, 100])
def test_a_loss_and_its_error_agree_with_a_slow_count(monkeypatch, batch_size):
    """Of a model that stays as it began: by rows, of which one asks nothing, whatever the batch."""
    still = replace(RECIPE, learning_rate=0.0, final_rate=0.0, batch_size=batch_size)
    strings = [("A", "Mb"), ("M", "A")]
    found = train(TASK, strings, [1, 1], still, report=quiet, **DOUBLE)
    inputs, targets = TASK.held_out
    logits = population(strings, [1, 1]).logits(torch.from_numpy(inputs)[None]).detach()
    for measured, one in zip(found, logits.log_softmax(-1).numpy(), strict=True):
        sums, asked = [], []
        for row in range(len(targets)):
            at = [t for t in range(LENGTH) if targets[row, t] != -100]
            sums.append(-sum(one[row, t, targets[row, t]] for t in at))
            asked.append(len(at))
        assert 0 in asked
        mean = sum(sums) / sum(asked)
        assert measured.loss == pytest.approx(mean, rel=1e-12)
        residuals = [s - mean * n for s, n in zip(sums, asked, strict=True)]
        rows = len(sums)
        direct = math.sqrt(rows) * np.std(residuals, ddof=1) / sum(asked)
        assert measured.loss_error == pytest.approx(direct, rel=1e-9)


def test_a_ratio_of_one_row_has_no_error():
    mean, error = ratio(np.array([3.0]), np.array([2]))
    assert mean == 1.5
    assert math.isnan(error)


def test_a_tie_goes_to_the_lowest_id(monkeypatch):
    honest = models.draw
    monkeypatch.setattr(
        models, "draw", lambda weight, *where: honest(weight, *where) * ("head" not in where)
    )
    still = replace(RECIPE, learning_rate=0.0, final_rate=0.0)
    (measured,) = train(TASK, [("A",)], [1], still, device="cpu", report=quiet)
    _, targets = TASK.held_out
    assert measured.accuracy == (targets == 0).sum() / (targets != -100).sum()
    assert measured.loss == pytest.approx(math.log(VOCABULARY))


def test_half_precision_inside_the_blocks_changes_little():
    """As on a GPU: blocks in bfloat16, weights and their gradients in single precision."""
    tokens, targets = (torch.from_numpy(rows)[None] for rows in TASK.train)
    found = []
    for short in (torch.float32, torch.bfloat16):
        model = population(
            [ONES, ONES[::-1]], [1, 2], from_last=True, dtype=torch.float32, short=short
        )
        logits = model.logits(tokens)
        nats(logits, targets)[0].sum().backward()
        weights = (*model.decayed, *model.spared)
        assert logits.dtype == torch.float32
        assert all(weight.grad.dtype == torch.float32 for weight in weights)
        found.append(logits)
    assert not torch.equal(*found)
    precise, rough = found
    assert (rough - precise).std() < 0.05 * precise.std()


def test_a_report_can_end_the_training():
    done = []

    def abort(step, steps):
        done.append(step)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TASK, [("M",)], [1], RECIPE, device="cpu", report=abort)
    assert done == [1, 2]


@pytest.mark.parametrize(
    ("strings", "seeds", "error"),
    [
        ([("A",), ("A", "M")], [1, 2], ValueError),
        ([("A",)], [1, 2], ValueError),
        ([], [], ValueError),
        ([("A", "S")], [1], KeyError),
    ],
)
def test_what_cannot_be_trained_is_refused(strings, seeds, error):
    with pytest.raises(error):
        train(TASK, strings, seeds, RECIPE, device="cpu", report=quiet)


def test_withheld_rows_must_ask_something():
    inputs, targets = TASK.held_out
    silent = replace(TASK, held_out=(inputs, np.full_like(targets, -100)))
    with pytest.raises(ValueError, match="ask nothing"):
        train(silent, [("A",)], [1], RECIPE, device="cpu", report=quiet)


@pytest.mark.parametrize(
    "sizes", [{"heads": 3}, {"heads": 16}, {"head_dim": 3}, {"expansion": 1.3}]
)
def test_sizes_that_do_not_divide_are_refused(sizes):
    with pytest.raises(ValueError, match="width 16"):
        replace(RECIPE, **sizes)


def test_a_task_is_asked_for_every_value_of_the_recipe():
    """Where one is missing, that is said before a run, and not by a training that fails."""
    needed = [field.name for field in fields(Recipe) if field.name != "kernels"]
    assert ("layers", *needed) == kinds.RECIPE
