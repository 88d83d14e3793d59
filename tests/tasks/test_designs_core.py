"""Compares the core function of each mechanism with its definition in mechanism_references.py.

In float64: values and gradients, padded rows, lengths that are not multiples of a chunk.
"""

import math
import random

import mechanism_references as reference
import pytest
import torch
from mechanisms import assert_same, draws, right_padded

from tasks.lra.gallery import load

HEADS = (3, 2, 23, 4)  # rows, heads, length, width
MASK = right_padded(23, 9, 1, length=23)

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.mark.parametrize(
    ("design", "function"),
    [
        ("softmax", "softmax_attention"),
        ("linear_attention", "linear_attention"),
    ],
)
def test_attention_is_what_its_definition_says(design: str, function: str) -> None:
    inputs = draws(HEADS, HEADS, HEADS)
    got = getattr(load(design), function)(*inputs, MASK)
    # Linear attention adds 1e-6 to its denominators.
    atol = 2e-5 if design == "linear_attention" else 1e-10
    assert_same(got, getattr(reference, function)(*inputs, MASK), inputs, atol=atol)


@pytest.mark.parametrize("window", [1, 4, 7, 23, 40])
@pytest.mark.parametrize("reals", [(23, 9, 1), (23, 23, 23)])
def test_window_attention_is_the_full_one_with_a_band(window: int, reals: tuple[int, ...]) -> None:
    inputs, mask = draws(HEADS, HEADS, HEADS), right_padded(*reals, length=23)
    got = load("sliding_window").window_attention(*inputs, mask, window)
    assert_same(got, reference.window_attention(*inputs, mask, window), inputs)


@pytest.mark.parametrize("width", [4, 6])
def test_rotary_scores_are_products_of_turned_complex_numbers(width: int) -> None:
    inputs = draws(*3 * [(2, 2, 11, width)])
    mask = right_padded(11, 5, length=11)
    got = load("rotary").rotary_attention(*inputs, mask)
    assert_same(got, reference.rotary_attention(*inputs, mask, 10_000.0), inputs)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    x, y = draws((1, 1, 1, 8), (1, 1, 1, 8))
    turned = [load("rotary").rotate(z.expand(1, 1, 30, 8))[0, 0] for z in (x, y)]
    scores = turned[0] @ turned[1].T
    for offset in (-7, 0, 12):
        diagonal = scores.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_performer_is_the_sum_over_its_features() -> None:
    module = load("performer")
    inputs = draws(HEADS, HEADS, HEADS)
    directions = module.orthogonal_directions(12, 4, seed=3).double()
    got = module.favor_attention(*inputs, MASK, directions)
    assert_same(got, reference.favor_attention(*inputs, MASK, directions), inputs)


def test_performer_approaches_softmax_attention_with_more_features() -> None:
    module = load("performer")
    inputs = [x.detach() / 2 for x in draws(HEADS, HEADS, HEADS)]
    exact = reference.softmax_attention(*inputs, MASK)
    errors = []
    for count in (16, 128, 1024):
        draw = [module.orthogonal_directions(count, 4, seed=seed).double() for seed in range(4)]
        estimates = [module.favor_attention(*inputs, MASK, directions) for directions in draw]
        errors.append(float((torch.stack(estimates) - exact).square().mean().sqrt()))
    # With 64 times the features the error should fall to 1/8; 1/4 leaves room for chance.
    assert errors[2] < errors[0] / 4
    assert errors[2] < 0.02


def test_performer_directions_are_gaussian_and_orthogonal_in_blocks() -> None:
    directions = load("performer").orthogonal_directions(640, 16, seed=0).double()
    gram = directions[:16] @ directions[:16].T
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-5)
    assert directions.square().sum(1).mean() == pytest.approx(16, rel=0.05)
    assert directions.mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("landmarks", [1, 3, 5])
def test_nystrom_is_three_softmax_matrices_with_an_exact_inverse(landmarks: int) -> None:
    inputs = draws(HEADS, HEADS, HEADS)
    got = load("nystrom").nystrom_attention(*inputs, MASK, landmarks, iterations=40)
    want = reference.nystrom_attention(*inputs, MASK, landmarks)
    assert_same(got, want, inputs, atol=1e-6)


def test_nystrom_with_a_landmark_for_every_token_is_softmax_attention() -> None:
    inputs = draws((2, 2, 7, 4), (2, 2, 7, 4), (2, 2, 7, 4))
    mask = right_padded(7, 4, length=7)
    got = load("nystrom").nystrom_attention(*inputs, mask, 7, iterations=60)
    want = reference.softmax_attention(*inputs, mask)
    real = mask[:, None, :, None]
    torch.testing.assert_close(got * real, want * real, rtol=0, atol=1e-6)


# One token, part of a chunk, one chunk, two chunks and one token, two chunks and more.
@pytest.mark.parametrize("length", [1, 20, 64, 129, 150])
@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
def test_gated_recurrence_is_its_two_recurrences(length: int, strength: float) -> None:
    shape = (2, length, 2, 3)
    q, k, v, raw = draws(shape, shape, shape, (2, length, 2, 2))
    log_decay = -strength * torch.nn.functional.softplus(raw)
    got = load("gated_recurrence").gated_recurrence(q, k, v, log_decay)
    want = reference.gated_recurrence(q, k, v, log_decay)
    assert_same(got, want, [q, k, v, raw])


@pytest.mark.parametrize("length", [1, 2, 17, 32])
def test_s4d_kernel_is_the_response_of_its_recurrence(length: int) -> None:
    channels, states = 3, 4
    u, log_dt, log_decay, frequency, parts = draws(
        (2, channels, length), (channels, 1), (channels, states), (channels, states),
        (channels, states, 2),
    )  # fmt: skip
    module = load("s4d")
    weight = torch.view_as_complex(parts)
    kernel = module.kernel(log_dt - 2, log_decay, frequency, weight, length)
    got = module.two_sided_convolution(u, kernel, torch.zeros_like(kernel))
    want = reference.state_space(u, log_dt - 2, log_decay, frequency, weight)
    assert_same(got, want, [u, log_dt, log_decay, frequency, parts])


@pytest.mark.parametrize("length", [1, 2, 17, 32])
def test_mega_kernel_is_the_response_of_its_moving_average(length: int) -> None:
    u, *rest = draws((2, 3, length), *4 * [(3, 5)])
    module = load("mega")
    kernel = module.average_kernel(*rest, length)
    got = module.two_sided_convolution(u, kernel, torch.zeros_like(kernel))
    assert_same(got, reference.moving_average(u, *rest), [u, *rest])


@pytest.mark.parametrize("design", ["s4d", "mega", "long_convolution"])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_convolution_by_fft_is_the_double_sum(design: str, length: int) -> None:
    inputs = draws((2, 3, length), (3, length), (3, length))
    got = load(design).two_sided_convolution(*inputs)
    assert_same(got, reference.two_sided_convolution(*inputs), inputs)


def test_long_convolution_filters_are_a_function_of_the_distance() -> None:
    filters = load("long_convolution").Filters(dim=6, length=40)
    short, long = filters(9), filters(40)
    assert long.shape == (2, 6, 40)
    torch.testing.assert_close(short, long[..., :9])
    # The same by hand, for one channel and one distance.
    share = 7 / 40
    angles = [2 * math.pi * share * band for band in range(1, 9)]
    x = torch.tensor([share, *map(math.sin, angles), *map(math.cos, angles)])
    x = torch.sin(filters.middle(torch.sin(4 * filters.enter(x))))
    rate = float(filters.log_rate.detach()[6 + 2].exp())
    want = float(filters.leave(x).detach()[6 + 2]) * math.exp(-7 * rate) * math.sqrt(rate)
    assert float(long.detach()[1, 2, 7]) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_tree_attention_is_each_node_over_the_list_of_its_children(heads: int) -> None:
    shape = (2, 12, heads, 3)
    inputs = draws(shape, shape, shape)
    chance = torch.Generator().manual_seed(0)
    parent = torch.randint(0, 12, (2, 12), generator=chance)
    is_child = torch.rand(2, 12, generator=chance) < 0.8
    got = load("tree").tree_attention(*inputs, parent, is_child)
    # The tolerance is large because the design adds 1e-6 to its denominators.
    want = reference.tree_attention(*inputs, parent, is_child)
    assert_same(got, want, inputs, atol=1e-4)


def test_bracket_parents_are_what_a_stack_says() -> None:
    chance = random.Random(0)

    def expression(depth: int) -> list[int]:
        if depth == 12 or chance.random() < 0.6:
            return [chance.randint(1, 10)]
        arguments = [expression(depth + 1) for _ in range(chance.randint(2, 4))]
        return [chance.randint(11, 14), *sum(arguments, []), 15]

    rows = [expression(0) for _ in range(300)]
    assert max(map(len, rows)) > 200
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row)
    for row, parents in zip(rows, load("tree").bracket_parents(tokens).tolist(), strict=True):
        assert parents[: len(row)] == reference.bracket_parents(row)


def test_even_tree_drops_the_last_octal_digit() -> None:
    parents = load("tree").even_parents(torch.zeros(3, 700, dtype=torch.long))
    assert parents.shape == (3, 700)
    for place in range(700):
        digits = f"{place:o}".rstrip("0")
        kept = (digits[:-1] + "0").ljust(len(f"{place:o}"), "0") if digits else "0"
        assert parents[1, place] == int(kept, 8), place
