"""Information that the parts of an image have about each other."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from curate.errors import UsageError
from curate.scoring.blocks import (
    SELF_COLUMNS,
    BlockGaussian,
    block_information,
    cross_information,
    equal_blocks,
    spherical_kmeans,
    token_information,
)
from curate.scoring.setlevel import collapsed


def auc(low: np.ndarray, high: np.ndarray) -> float:
    return float(np.mean(low[:, None] < high[None, :]))


def latent(n: int = 3000, d: int = 32, clusters: int = 4, seed: int = 0) -> np.ndarray:
    """Rows of a few clusters, with latent factors that all coordinates share."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(clusters, d))[rng.integers(0, clusters, n)]
    factor = rng.normal(size=(n, 6)) @ rng.normal(size=(6, d))
    return (centre + factor + 0.7 * rng.normal(size=(n, d))).astype(np.float32)


def put_together_wrongly(x: np.ndarray, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    wrong = rng.random(len(x)) < share
    out, half = x.copy(), x.shape[-1] // 2
    out[wrong, ..., half:] = x[rng.permutation(len(x))[: wrong.sum()], ..., half:]
    return out, wrong


def sums(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    wide = x.astype(np.float64)
    return float(len(x)), wide.sum(axis=0), wide.T @ wide


BLOCKS = [slice(0, 2), slice(2, 3), slice(3, 6)]


def test_scores_are_leave_one_out_to_the_digit() -> None:
    x = latent(50, 6)
    prior, weight = np.diag(np.linspace(0.3, 0.8, 6)), 4.0
    ours = BlockGaussian(*sums(x), BLOCKS, prior, weight).score(x)
    for i in range(0, 50, 7):
        refit = BlockGaussian(*sums(np.delete(x, i, axis=0)), BLOCKS, prior, weight).score(x[i : i + 1], seen=False)
        for name in SELF_COLUMNS:
            assert ours[name][i] == pytest.approx(refit[name][0], abs=2e-5)


def test_many_rows_give_the_gaussian_formula() -> None:
    """With many rows the Student-t is the Gaussian: blocks and conditionals by scipy and by the definition."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    covariance = mix @ mix.T + 0.5 * np.eye(6)
    n = 10**7
    model = BlockGaussian(n, np.zeros(6), n * covariance, BLOCKS, np.eye(6), 0.0)
    x = rng.multivariate_normal(np.zeros(6), covariance, 5).astype(np.float32)
    ours = model.score(x, seen=False)
    s0, s1 = np.zeros(5), np.zeros(5)
    joint = multivariate_normal(cov=covariance).logpdf(x)
    for block in BLOCKS:
        at = np.arange(6)[block]
        rest = np.setdiff1d(np.arange(6), at)
        s0 -= multivariate_normal(cov=covariance[np.ix_(at, at)]).logpdf(x[:, at])
        s1 -= joint - multivariate_normal(cov=covariance[np.ix_(rest, rest)]).logpdf(x[:, rest])
    np.testing.assert_allclose(ours["s0_self"], s0 / 3 / np.log(2), atol=1e-4)
    np.testing.assert_allclose(ours["s1_self"], s1 / 3 / np.log(2), atol=1e-4)
    np.testing.assert_allclose(ours["pvi_self"], ours["s0_self"] - ours["s1_self"], atol=1e-5)


@pytest.mark.parametrize("clusters", [1, 4, None])
def test_rows_put_together_wrongly_have_little_information(clusters: int | None) -> None:
    x, wrong = put_together_wrongly(latent())
    pvi = block_information(x, 4, clusters)["pvi_self"]
    assert auc(pvi[wrong], pvi[~wrong]) > 0.9
    assert collapsed(pvi) == ""


def test_whitened_rows_collapse() -> None:
    x = latent().astype(np.float64)
    white = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    pvi = block_information(white.astype(np.float32), 4, 1)["pvi_self"]
    assert np.abs(pvi).max() < 0.01
    assert "collapsed" in collapsed(pvi)
    model = BlockGaussian(10**7, np.zeros(6), 10**7 * np.diag(np.arange(1.0, 7)), BLOCKS, np.eye(6), 0.0)
    np.testing.assert_allclose(model.score(latent(20, 6), seen=False)["pvi_self"], 0, atol=1e-4)


def test_clusters_see_in_whitened_rows_what_one_covariance_cannot() -> None:
    """Each cluster has factors of its own; all together are white."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, 3, 3000)
    x = np.stack([rng.normal(size=(5, 16))[None] for _ in range(3)])[which, 0]
    x = (rng.normal(size=(3000, 1, 5)) @ x)[:, 0] + 0.5 * rng.normal(size=(3000, 16))
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    wrongly, wrong = put_together_wrongly(white.astype(np.float32))
    whole, local = (block_information(wrongly, 4, c)["pvi_self"] for c in (1, which))
    assert auc(whole[wrong], whole[~wrong]) < 0.7
    assert auc(local[wrong], local[~wrong]) > 0.9


def test_clusters_of_few_rows_are_joined_and_scores_are_finite() -> None:
    x = latent(300)
    which = np.zeros(300, np.int64)
    which[:3], which[3:5], which[5] = 7, 8, 9
    for assignment in (which, np.arange(300), np.arange(300) // 10):
        assert all(np.isfinite(v).all() for v in block_information(x, 4, assignment).values())


@pytest.mark.parametrize("n", [0, 1, 2, 3, 40])
def test_few_or_equal_rows_are_finite(n: int) -> None:
    for x in (latent(n), np.ones((n, 32), np.float32), np.zeros((n, 32), np.float32)):
        ours = block_information(x)
        assert tuple(ours) == SELF_COLUMNS
        assert all(v.shape == (n,) and np.isfinite(v).all() for v in ours.values())


def test_scale_moves_surprises_but_not_information() -> None:
    x = latent(500)
    small, large = block_information(x, 4, 1), block_information(x * 1000, 4, 1)
    np.testing.assert_allclose(large["pvi_self"], small["pvi_self"], atol=1e-2)
    np.testing.assert_allclose(large["s0_self"] - small["s0_self"], 8 * np.log2(1000), atol=1e-2)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="1 block"):
        block_information(latent(30), 1)
    with pytest.raises(UsageError, match="30 rows"):
        block_information(latent(30), 4, np.zeros(29, np.int64))
    with pytest.raises(UsageError, match="at least 2"):
        BlockGaussian(*sums(latent(1, 6)), BLOCKS)


def test_blocks_part_the_coordinates() -> None:
    assert equal_blocks(7, 3) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    assert equal_blocks(2, 5) == [slice(0, 1), slice(1, 2)]


# --- tokens and second encoders


def tokens(n: int = 1500, side: int = 4, d: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 1, 12)) @ rng.normal(size=(12, d))
    return (shared + rng.normal(size=(n, side * side, d))).astype(np.float32)


def test_images_with_a_foreign_half_have_little_information() -> None:
    image = tokens()
    wrong = np.random.default_rng(1).random(len(image)) < 0.03
    image[wrong, 8:] = np.roll(image, 1, axis=0)[wrong, 8:]
    pvi = token_information(image)["pvi_self"]
    assert auc(pvi[wrong], pvi[~wrong]) > 0.9


def test_token_grids_of_any_shape_and_size() -> None:
    image = tokens(60)
    np.testing.assert_array_equal(
        token_information(image)["pvi_self"], token_information(image, shape=(4, 4))["pvi_self"]
    )
    assert np.isfinite(token_information(image[:, :6], shape=(2, 3))["pvi_self"]).all()
    for n in (0, 1, 2, 9):
        assert token_information(image[:n])["pvi_self"].shape == (n,)
    for arguments in ({"shape": (3, 3)}, {"grid": 1}, {"grid": 5}):
        with pytest.raises(UsageError, match="16 tokens"):
            token_information(image, **arguments)


def test_second_encoders_find_images_that_were_swapped() -> None:
    x = latent(1500, 40)
    y = np.tanh(x @ np.random.default_rng(2).normal(size=(40, 24)) / 10).astype(np.float32)
    wrong = np.random.default_rng(1).random(1500) < 0.1
    y[wrong] = np.roll(y[wrong], 1, axis=0)
    pvi = cross_information(x, y)["pvi_self"]
    assert auc(pvi[wrong], pvi[~wrong]) > 0.95
    for n in (0, 1, 2, 9):
        assert all(np.isfinite(v).all() for v in cross_information(x[:n], y[:n]).values())
    with pytest.raises(UsageError, match="same images"):
        cross_information(x, y[1:])


# --- clusters


def test_clusters_hold_rows_of_one_kind() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(5), 40)
    x = (rng.normal(size=(5, 16))[truth] + 0.1 * rng.normal(size=(200, 16))).astype(np.float32)
    ours = spherical_kmeans(x, 15, 3)
    np.testing.assert_array_equal(ours, spherical_kmeans(x, 15, 3))
    assert 5 <= len(np.unique(ours)) <= 15
    assert all(len(np.unique(truth[ours == c])) == 1 for c in np.unique(ours))


@pytest.mark.parametrize(("n", "count"), [(1, 1), (3, 9), (20, 4)])
def test_clusters_of_equal_rows_are_harmless(n: int, count: int) -> None:
    for x in (np.ones((n, 3), np.float32), np.zeros((n, 3), np.float32)):
        ours = spherical_kmeans(x, count, 0)
        assert ours.shape == (n,)
        assert ((ours >= 0) & (ours < count)).all()
