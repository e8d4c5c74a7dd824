"""Labels judged by the labels of neighbours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import UsageError
from curate.scoring.knn_labels import soft_pvi, vote_bits, vote_shares, vote_weights

LABEL = np.array([0, 0, 0, 1])
NEIGHBOR = np.array([[1, 2], [0, 3], [3, -1], [0, 1]])


def test_votes_by_hand() -> None:
    q, shares = vote_shares(NEIGHBOR, LABEL, 2, kappa=2.0)
    # Without itself, row 0 sees 2 of class 0 and 1 of class 1: (2.5, 1.5) / 4; row 3 sees (3.5, 0.5) / 4.
    np.testing.assert_allclose(shares[[0, 3]], [[0.625, 0.375], [0.875, 0.125]])
    np.testing.assert_allclose(q[0], (np.array([2, 0]) + 2 * shares[0]) / 4)
    np.testing.assert_allclose(q[2], (np.array([0, 1]) + 2 * shares[2]) / 3)  # one neighbour is padding
    np.testing.assert_allclose(q.sum(axis=1), 1.0)


def test_bits_are_those_of_the_shares() -> None:
    q, shares = vote_shares(NEIGHBOR, LABEL, 2)
    columns = vote_bits(NEIGHBOR, LABEL, 2)
    np.testing.assert_allclose(columns["s0_vote"], -np.log2(shares[np.arange(4), LABEL]), rtol=1e-6)
    np.testing.assert_allclose(columns["s1_vote"], -np.log2(q[np.arange(4), LABEL]), rtol=1e-6)
    np.testing.assert_allclose(columns["pvi_vote"], columns["s0_vote"] - columns["s1_vote"], atol=1e-6)
    assert columns["pvi_vote"][0] > 0 > columns["pvi_vote"][3]


@given(st.integers(0, 999), st.integers(2, 12), st.integers(1, 6), st.integers(1, 4), st.sampled_from([0.5, 2.0]))
def test_pvi_and_surprise_keep_their_bounds(seed, n, k, classes, kappa) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    neighbor = (np.arange(n)[:, None] + rng.integers(1, n, (n, k))) % n
    columns = vote_bits(neighbor, label, classes, kappa=kappa)
    _, shares = vote_shares(neighbor, label, classes, kappa=kappa)
    own = shares[np.arange(n), label]
    assert (columns["pvi_vote"] >= np.log2(kappa / (k + kappa)) - 1e-5).all()
    assert (columns["s1_vote"] <= np.log2((k + kappa) / (kappa * own)) + 1e-5).all()


def test_equal_weights_of_one_change_nothing() -> None:
    plain, _ = vote_shares(NEIGHBOR, LABEL, 2)
    weighted, _ = vote_shares(NEIGHBOR, LABEL, 2, weight=np.ones(NEIGHBOR.shape))
    np.testing.assert_array_equal(plain, weighted)


def test_nearer_neighbours_count_more() -> None:
    sim = np.float32([[0.9, 0.8, -np.inf], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(vote_weights(sim, 10.0), [[1, np.exp(-1), 0], [1, 1, 1]], rtol=1e-6)
    np.testing.assert_array_equal(vote_weights(sim, 0.0), [[1, 1, 0], [1, 1, 1]])
    label, neighbor = np.array([0, 0, 1]), np.array([[1, 2], [0, 2], [0, 1]])
    weight = vote_weights(np.float32([[0.9, 0.2]] * 3), 10.0)
    near = vote_bits(neighbor, label, 2, weight=weight)["s1_vote"][0]
    assert near < vote_bits(neighbor, label, 2)["s1_vote"][0]


def test_row_without_neighbours_falls_back_to_the_class_shares() -> None:
    columns = vote_bits(np.full((3, 2), -1), np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(columns["pvi_vote"], 0.0, atol=1e-6)
    assert (vote_weights(np.full((1, 2), -np.inf, dtype=np.float32), 5.0) == 0).all()


@pytest.mark.parametrize("k", [0, 3])
def test_few_rows(k) -> None:
    assert vote_bits(np.zeros((0, k), dtype=int), np.zeros(0, dtype=int), 2)["s1_vote"].shape == (0,)
    columns = vote_bits(np.full((1, k), -1), np.array([0]), 2)
    np.testing.assert_allclose(columns["s1_vote"], [1.0])


def test_soft_labels_weigh_the_gain_of_each_class() -> None:
    given_p, null = np.array([[0.5, 0.5, 0.0]] * 2), np.array([0.25, 0.5, 0.25])
    target = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(soft_pvi(target, given_p, null), [0.5, 1.0])


def test_hard_target_gives_the_pvi_of_the_votes() -> None:
    q, shares = vote_shares(NEIGHBOR, LABEL, 2)
    pvi = soft_pvi(np.eye(2)[LABEL], q, shares)
    np.testing.assert_allclose(pvi, vote_bits(NEIGHBOR, LABEL, 2)["pvi_vote"], atol=1e-6)


@pytest.mark.parametrize(
    ("neighbor", "label", "kappa", "message"),
    [
        (np.array([[0], [0]]), [0, 1], 2.0, "its own"),
        (np.array([[1], [2]]), [0, 1], 2.0, "row 2"),
        (np.array([[1]]), [0, 1], 2.0, "shape"),
        (np.array([[1], [0]]), [0, 2], 2.0, "labels"),
        (np.array([[1], [0]]), [0, 1], 0.0, "kappa"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(neighbor, label, kappa, message) -> None:
    with pytest.raises(UsageError, match=message):
        vote_bits(neighbor, np.array(label), 2, kappa=kappa)


def test_soft_shapes_must_fit() -> None:
    with pytest.raises(UsageError, match="shape"):
        soft_pvi(np.ones((2, 3)), np.ones((2, 2)), np.ones(2))
