"""V-information under learned heads: held out, in bits, and it finds what a linear family does not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from curate.errors import UsageError
from curate.recipe import ScoreTable
from curate.scoring.learned import LEARNED_COLUMNS, learned_information
from curate.scoring.pairs import pair_information

torch = pytest.importorskip("torch")


def pairs(n: int = 400, noise: float = 0.3, seed: int = 0) -> tuple[Any, Any]:
    """Return two views of 8 hidden numbers: 24 and 16 dimensions, float32."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 8))
    views = [hidden @ rng.normal(size=(8, d)) + noise * rng.normal(size=(n, d)) for d in (24, 16)]
    return views[0].astype(np.float32), views[1].astype(np.float32)


def test_columns_are_bits_that_add_up() -> None:
    x, y = pairs(203)
    found = learned_information(x, y, folds=4)
    assert tuple(found) == LEARNED_COLUMNS
    assert all((v.dtype, v.shape) == (np.float32, (203,)) and np.isfinite(v).all() for v in found.values())
    # The best blind guess is uniform over the other pairs of the fold: 50 or 51 of them.
    assert np.unique(found["s0_learned"]).tolist() == pytest.approx([math.log2(50), math.log2(51)])
    np.testing.assert_allclose(found["pvi_learned"], found["s0_learned"] - found["s1_learned"], atol=1e-5)
    assert found["s1_learned"].min() > -1e-5
    assert found["pvi_learned"].mean() > 1


def test_swapped_pairs_have_low_information() -> None:
    x, y = pairs()
    wrong = np.arange(400) % 10 == 0
    y[wrong] = np.roll(y[wrong], 1, axis=0)
    pvi = learned_information(x, y)["pvi_learned"]
    assert (pvi[wrong][:, None] < pvi[~wrong]).mean() > 0.97


def test_views_that_say_nothing_of_each_other_have_no_information() -> None:
    """Pairs are scored by heads that never saw them: what these know by heart is worth nothing."""
    x, _ = pairs(seed=1)
    _, y = pairs(seed=2)
    found = learned_information(x, y)
    assert found["pvi_learned"].mean() < 0.1


def test_it_sees_what_a_linear_family_does_not() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(700, 3))
    x = np.concatenate([hidden, 0.1 * rng.normal(size=(700, 3))], axis=1).astype(np.float32)
    y = (np.abs(hidden) @ rng.normal(size=(3, 6)) + 0.05 * rng.normal(size=(700, 6))).astype(np.float32)
    learned = learned_information(x, y)["pvi_learned"].mean()
    linear = pair_information(x, y, ScoreTable())["pvi"].mean()
    assert linear < 0.2
    assert learned > linear + 0.5


def test_only_trusted_pairs_are_learned_from() -> None:
    x, y = pairs()
    trusted = np.arange(400) % 2 == 0
    first = learned_information(x, y, trusted)
    changed = y.copy()
    changed[399] = -y[399]  # not trusted: it changes its own fold's candidates, and no head
    second = learned_information(x, changed, trusted)
    moved = np.abs(first["pvi_learned"] - second["pvi_learned"]) > 1e-4
    assert moved[399]
    assert moved.sum() <= 80  # a fold has 80
    wrong = np.where(trusted[:, None], y, np.roll(y, 2, axis=0))
    assert learned_information(x, wrong, trusted)["pvi_learned"][trusted].mean() > 1


def test_the_same_arguments_give_the_same_bits_and_leave_torch_alone() -> None:
    x, y = pairs(150)
    before = (x.copy(), y.copy())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = learned_information(x, y, folds=3, seed=1)
    assert (torch.rand(3) == expected).all()
    second = learned_information(x, y, folds=3, seed=1)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    assert (learned_information(x, y, folds=3, seed=2)["pvi_learned"] != first["pvi_learned"]).any()
    assert (x == before[0]).all()
    assert (y == before[1]).all()


@pytest.mark.parametrize("equal", ["x", "y", "both"])
def test_equal_rows_have_no_information(equal: str) -> None:
    x, y = pairs(100)
    x = np.repeat(x[:1], 100, axis=0) if equal != "y" else x
    y = np.repeat(y[:1], 100, axis=0) if equal != "x" else y
    pvi = learned_information(x, y, folds=2)["pvi_learned"]
    assert abs(pvi.mean()) < 0.05
    assert np.abs(pvi).max() < 0.6  # of log2 50: one side is told by a little chance


@pytest.mark.parametrize(
    ("rows", "trusted", "folds", "message"),
    [
        (50, None, 5, "50 trusted rows in 5 folds; at least 64 and 2"),
        (100, 63, 5, "63 trusted rows"),
        (100, None, 1, "in 1 folds"),
        (0, None, 5, "0 trusted rows"),
        (80, None, 11, "each fold needs 8 pairs"),
    ],
)
def test_too_few_rows_or_folds_are_named(rows: int, trusted: int | None, folds: int, message: str) -> None:
    x, y = pairs(rows)
    mask = None if trusted is None else np.arange(rows) < trusted
    with pytest.raises(UsageError, match=message):
        learned_information(x, y, mask, folds)


def test_lengths_that_differ_are_named() -> None:
    x, y = pairs(100)
    with pytest.raises(UsageError, match="image has 100 rows, text 99"):
        learned_information(x, y[1:])
    with pytest.raises(UsageError, match=r"trusted \(7,\)"):
        learned_information(x, y, np.ones(7, dtype=bool))
