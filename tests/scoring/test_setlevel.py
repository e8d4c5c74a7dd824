"""What a subset teaches about a reference set."""

import numpy as np
import pytest

from curate.errors import UsageError
from curate.scoring.gaussian import LinearGaussian, pair_sums
from curate.scoring.setlevel import collapsed, set_information, subset_information


def pairs(n: int = 400, p: int = 10, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    y = x @ np.random.default_rng(1).normal(size=(p, d)) / p**0.5 + 0.5 * rng.normal(size=(n, d))
    return x.astype(np.float32), y.astype(np.float32)


def test_subset_information_equals_refits() -> None:
    x, y = pairs(40)
    index = np.arange(0, 40, 2)
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    bits, null = [], []
    for i in range(40):
        rest, others = index[index != i], np.delete(np.arange(40), i)
        row, target = wide_x[i : i + 1], wide_y[i : i + 1]
        bits.append(LinearGaussian.fit(pair_sums(x[rest], y[rest]), 2.0).predictive(row, target)[0])
        null.append(LinearGaussian.null(pair_sums(x[others], y[others])).predictive(row[:, :0], target)[0])
    ours = subset_information(x, y, index, 2.0)
    # The prior scatter is a millionth of the targets' variance, which a refit takes from one row less.
    assert ours.s1 == pytest.approx(-np.mean(bits), abs=2e-4)
    assert ours.s0 == pytest.approx(-np.mean(null), abs=2e-4)
    assert ours.information == pytest.approx(ours.s0 - ours.s1)
    assert ours.error == pytest.approx(np.std(np.subtract(bits, null)) / 40**0.5, abs=2e-4)


def test_all_pairs_as_subset_is_leave_one_out() -> None:
    x, y = pairs()
    whole = subset_information(x, y, range(400), 1.0)
    moments = pair_sums(x, y)
    expected = LinearGaussian.fit(moments, 1.0).leave_one_out(x, y) - LinearGaussian.null(moments).leave_one_out(
        x[:, :0], y
    )
    assert whole.information == pytest.approx(expected.mean(), rel=1e-6)


def test_larger_clean_subsets_teach_more_and_shuffled_ones_less() -> None:
    x, y = pairs(2000)
    order = np.random.default_rng(0).permutation(2000)
    bits = [subset_information(x, y, order[:m]).information for m in (30, 100, 300, 1000)]
    assert (np.diff(bits) > 0).all()
    target_x, target_y = pairs(500, seed=9)
    clean, half = pair_sums(x[:300], y[:300]), pair_sums(x[:300], y[:300])
    half.merge(pair_sums(x[300:600], np.roll(y[300:600], 1, axis=0)))
    shuffled = pair_sums(x[:300], np.roll(y[:300], 1, axis=0))
    values = [set_information(m, target_x, target_y).information for m in (clean, half, shuffled)]
    assert values[0] > values[1] > values[2]
    assert values[2] < 0 < values[0]


def test_information_of_gaussians_is_near_its_population_value() -> None:
    x, y = pairs(20_000)
    weight = np.random.default_rng(1).normal(size=(10, 3)) / 10**0.5
    truth = np.linalg.slogdet(np.eye(3) + 4 * weight.T @ weight)[1] / 2 / np.log(2)
    ours = subset_information(x, y, range(5000))
    assert ours.information == pytest.approx(truth, abs=0.05)
    assert abs(ours.information - truth) < 4 * ours.error


def test_odd_targets_gain_nothing_by_a_bad_null_of_their_own() -> None:
    x, y = pairs()
    moved = pair_sums(x[:200], y[:200] + 50)
    assert set_information(moved, x, y).information < 0


def test_one_pair_is_finite_and_none_is_named() -> None:
    x, y = pairs(30)
    assert np.isfinite(subset_information(x, y, [3]).information)
    assert np.isfinite(subset_information(np.ones_like(x), np.ones_like(y), [1, 2]).information)
    for index in ([], np.zeros(0, np.int64)):
        with pytest.raises(UsageError, match="0 pairs"):
            subset_information(x, y, index)


@pytest.mark.parametrize("index", [[1, 1], [30], [-1]])
def test_rows_named_twice_or_missing_are_refused(index: list[int]) -> None:
    with pytest.raises(UsageError, match="distinct rows of the 30"):
        subset_information(*pairs(30), index)


def test_other_dimensions_are_named() -> None:
    x, y = pairs(30)
    with pytest.raises(UsageError, match=r"\(10, 2\)"):
        set_information(pair_sums(x, y[:, :2]), x, y)


@pytest.mark.parametrize(
    ("pvi", "arguments", "says"),
    [
        ([0.5, np.nan, -0.1], {}, ""),
        ([0.1, -0.3], {}, "no more than without"),
        ([0.0, 0.0], {}, "no more than without"),
        ([np.nan], {}, "no row"),
        ([], {}, "no row"),
        ([1.0], {"accuracy": 0.4, "prior": 0.4}, "accuracy 0.400"),
        ([1.0], {"accuracy": 0.5, "prior": 0.4}, ""),
    ],
)
def test_family_that_sees_nothing_is_reported(pvi: list[float], arguments: dict[str, float], says: str) -> None:
    message = collapsed(np.array(pvi), **arguments)
    assert (says in message) if says else message == ""
