"""Contrastive V-information, against the dense matrix."""

import numpy as np
import pytest

from curate.errors import UsageError
from curate.scoring import infonce
from curate.scoring.infonce import INFONCE_COLUMNS, contrastive_information
from curate_kernels.arrays import unit_rows


def views(n: int, d: int = 32, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two views of n things in one space, each with a mean of its own (the modality gap)."""
    rng = np.random.default_rng(seed)
    shared, gap = rng.normal(size=(n, d)), rng.normal(size=(2, d))
    x, y = (shared + noise * rng.normal(size=(n, d)) + gap[k] for k in range(2))
    return unit_rows(x.astype(np.float32)), unit_rows(y.astype(np.float32))


def dense(x: np.ndarray, y: np.ndarray, temperature: float) -> np.ndarray:
    """negCLIPLoss as published, from the full matrix, in float64; in units of cosine."""
    logit = x.astype(np.float64) @ y.T.astype(np.float64) / temperature
    both = np.logaddexp.reduce(logit, axis=1) + np.logaddexp.reduce(logit, axis=0)
    return temperature * (np.diag(logit) - both / 2)


@pytest.mark.parametrize("temperature", [0.0005, 0.005, 0.01, 0.07, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 600])
def test_surprise_is_negclip_loss_in_bits(n: int, temperature: float) -> None:
    x, y = views(n)
    ours = contrastive_information(x, y, temperature)
    expected = -dense(x, y, temperature) / (temperature * np.log(2))
    np.testing.assert_allclose(ours["s1_infonce"], expected, rtol=1e-5, atol=2e-6 / temperature)
    np.testing.assert_allclose(ours["s0_infonce"], np.log2(n), rtol=1e-6)


def test_columns_are_consistent() -> None:
    x, y = views(200)
    ours = contrastive_information(x, y, 0.05)
    assert tuple(ours) == INFONCE_COLUMNS
    assert {value.dtype for value in ours.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(ours["pvi_infonce"], ours["s0_infonce"] - ours["s1_infonce"], atol=1e-5)
    own = (x * y).sum(axis=1) / (0.05 * np.log(2))
    np.testing.assert_allclose(ours["pvi_infonce"], own - ours["partition_infonce"], atol=1e-4)


def test_tiles_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = views(300)
    whole = contrastive_information(x, y, 0.01)["s1_infonce"]
    monkeypatch.setattr(infonce, "_ROWS", 64)
    monkeypatch.setattr(infonce, "_COLUMNS", 96)
    np.testing.assert_allclose(contrastive_information(x, y, 0.01)["s1_infonce"], whole, rtol=1e-4, atol=1e-5)


def test_similarities_far_apart_neither_overflow_nor_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile with cosines from -1 to 1: exp(1 / .002) overflows float64, and the least is 1,400 binades below."""
    monkeypatch.setattr(infonce, "_ROWS", 5)
    monkeypatch.setattr(infonce, "_COLUMNS", 7)
    angle = np.linspace(0, np.pi, 23)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    y = x[np.random.default_rng(0).permutation(23)]
    ours = contrastive_information(x, y, 0.002)["s1_infonce"]
    np.testing.assert_allclose(ours, -dense(x, y, 0.002) / (0.002 * np.log(2)), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("temperature", "bound"), [(0.01, 0.3), (0.07, 0.03), (1.0, 0.002)])
def test_eight_bit_products_stay_within_their_bound(temperature: float, bound: float) -> None:
    x, y = views(2500, 96, noise=2.0)
    exact = contrastive_information(x, y, temperature, product="float32")["s1_infonce"]
    rounded = contrastive_information(x, y, temperature, product="int8")["s1_infonce"]
    assert not np.array_equal(exact, rounded)
    assert np.abs(rounded - exact).max() < bound
    assert np.sqrt(np.mean((rounded - exact) ** 2)) < bound / 4


def test_own_pair_is_not_rounded() -> None:
    """Pairs that match perfectly lose no bits to the rounding of their own similarity."""
    x, _ = views(300, 64)
    assert contrastive_information(x, x, 0.01, product="int8")["s1_infonce"].max() < 1e-6


@pytest.mark.parametrize(("tolerance", "as_exact"), [(0.0, True), (1e9, False)])
def test_auto_takes_float32_where_eight_bits_move_too_much(
    monkeypatch: pytest.MonkeyPatch, tolerance: float, as_exact: bool
) -> None:
    monkeypatch.setattr(infonce, "_INT8_FROM", 1)
    monkeypatch.setattr(infonce, "_TOLERANCE", tolerance)
    x, y = views(400)
    auto, exact = (contrastive_information(x, y, product=p)["s1_infonce"] for p in ("auto", "float32"))
    assert np.array_equal(auto, exact) == as_exact


def test_small_batches_are_means_over_random_divisions() -> None:
    x, y = views(300)
    whole = contrastive_information(x, y, 0.05)
    parts = contrastive_information(x, y, 0.05, batch=100, repeats=40)
    np.testing.assert_allclose(parts["s0_infonce"], np.log2(100), rtol=1e-6)
    # The partition is a mean over candidates, so that it does not depend on how many there are (but for its noise).
    assert np.corrcoef(parts["partition_infonce"], whole["partition_infonce"])[0, 1] > 0.97
    again = contrastive_information(x, y, 0.05, batch=100, repeats=40)
    np.testing.assert_array_equal(parts["s1_infonce"], again["s1_infonce"])
    other = contrastive_information(x, y, 0.05, batch=100, repeats=40, seed=1)
    assert not np.array_equal(parts["s1_infonce"], other["s1_infonce"])


def test_batches_are_nearly_equal() -> None:
    ours = contrastive_information(*views(101), 0.05, batch=100, repeats=1)
    assert set(np.round(2.0 ** ours["s0_infonce"]).astype(int)) == {50, 51}


def test_swapped_captions_have_little_information() -> None:
    x, y = views(1000, 64)
    swapped = np.arange(1000) < 100
    y[swapped] = np.roll(y[swapped], 1, axis=0)
    pvi = contrastive_information(x, y, 0.05)["pvi_infonce"]
    assert np.mean(pvi[swapped][:, None] < pvi[~swapped]) > 0.99


def test_degenerate_pairs_are_finite() -> None:
    for x in (np.zeros((5, 4), np.float32), np.ones((5, 4), np.float32), np.zeros((0, 4), np.float32)):
        for product in ("float32", "int8", "auto"):
            ours = contrastive_information(x, x, product=product)
            assert all(np.isfinite(value).all() for value in ours.values())
            np.testing.assert_allclose(ours["pvi_infonce"], 0, atol=1e-5)


@pytest.mark.parametrize(
    "arguments", [{"temperature": 0.0}, {"temperature": float("nan")}, {"batch": 0}, {"repeats": 0}]
)
def test_numbers_out_of_range_are_named(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(arguments))):
        contrastive_information(*views(4), **arguments)


def test_views_of_different_shapes_are_named() -> None:
    with pytest.raises(UsageError, match=r"\(4, 32\).*\(5, 32\)"):
        contrastive_information(views(4)[0], views(5)[1])
