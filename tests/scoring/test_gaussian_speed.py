"""The linear-Gaussian family in float32 chunks gives what it gives in float64."""

import numpy as np
import pytest

from curate.scoring import gaussian
from curate.scoring.gaussian import LinearGaussian, best_ridge, pair_sums, principal_components


def pairs(n: int, p: int, d: int, seed: int = 0, mean: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = mean + rng.normal(size=(n, p)) * np.linspace(2, 0.1, p)
    y = mean + x @ rng.normal(size=(p, d)) / p**0.5 + rng.normal(size=(n, d))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize(
    ("n", "p", "d", "mean"), [(3000, 128, 48, 0.0), (2500, 40, 3, 5.0), (200, 90, 20, 1.0), (30, 4, 1, 0.0)]
)
def test_float32_rows_score_within_half_a_millibit_of_float64(n: int, p: int, d: int, mean: float) -> None:
    x, y = pairs(n, p, d, mean=mean)
    moments = pair_sums(x, y)
    for family, given in ((LinearGaussian.fit(moments, 1.0), x), (LinearGaussian.null(moments), x[:, :0])):
        for score in (family.leave_one_out, family.predictive):
            wide = score(given.astype(np.float64), y.astype(np.float64))
            np.testing.assert_allclose(score(given, y), wide, atol=5e-4, rtol=0)


def test_mixed_rows_take_the_float64_path() -> None:
    x, y = pairs(300, 20, 5)
    family = LinearGaussian.fit(pair_sums(x, y), 1.0)
    wide = family.leave_one_out(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_array_equal(family.leave_one_out(x.astype(np.float64), y), wide)
    np.testing.assert_array_equal(family.leave_one_out(x, y.astype(np.float64)), wide)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_chunks_and_strides_make_no_difference(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    x, y = (v.astype(kind) for v in pairs(100, 12, 4))
    family = LinearGaussian.fit(pair_sums(x, y), 1.0)
    whole = family.leave_one_out(x, y)
    monkeypatch.setattr(gaussian, "_CHUNK", 7)
    np.testing.assert_allclose(family.leave_one_out(np.asfortranarray(x), y), whole, atol=1e-5)
    np.testing.assert_allclose(family.leave_one_out(x[::-1], y[::-1])[::-1], whole, atol=1e-5)


def test_rows_are_not_written_to() -> None:
    x, y = pairs(50, 6, 2)
    before = x.copy(), y.copy()
    LinearGaussian.fit(pair_sums(x, y), 1.0).leave_one_out(x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_sums_of_chunks_are_the_sums_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pairs(100, 6, 2)
    whole = pair_sums(x, y).arrays()
    monkeypatch.setattr(gaussian, "_CHUNK", 3)
    for name, value in pair_sums(x, y).arrays().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-12, atol=1e-9)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(whole["xx"], wide.T @ wide, rtol=1e-12)


def test_null_family_knows_the_mean_and_the_scatter() -> None:
    x, y = pairs(200, 3, 2)
    design = np.ones((200, 1))
    wide = y.astype(np.float64)
    family = LinearGaussian(200.0, design.T @ design, design.T @ wide, wide.T @ wide, 0.0)
    ours = LinearGaussian.null(pair_sums(x, y)).leave_one_out(x[:, :0].astype(np.float64), wide)
    np.testing.assert_allclose(ours, family.leave_one_out(x[:, :0], wide), rtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_best_ridge_has_the_largest_leave_one_out_likelihood(seed: int) -> None:
    x, y = pairs(60, 30, 2, seed)
    moments = pair_sums(x, y)
    means = {r: LinearGaussian.fit(moments, r).leave_one_out(x, y).mean() for r in gaussian.RIDGES}
    assert best_ridge(moments, x, y) == max(means, key=means.__getitem__)


def test_views_without_relation_get_a_large_ridge() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 40)).astype(np.float32), rng.normal(size=(400, 3)).astype(np.float32)
    assert best_ridge(pair_sums(x, y), x, y) >= 1000


def test_principal_components_are_centred_and_of_unit_mean_square() -> None:
    x, _ = pairs(500, 12, 1, mean=3.0)
    components = principal_components(x, 5).astype(np.float64)
    np.testing.assert_allclose(components.mean(axis=0), 0, atol=1e-5)
    assert (components**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)
    covariance = components.T @ components / 500
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)
    assert (np.diff(np.diag(covariance)) <= 0).all()
    assert np.abs(principal_components(np.ones((9, 4), np.float32), 2)).max() < 1e-2
