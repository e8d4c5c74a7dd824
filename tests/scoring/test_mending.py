"""What mending asks of the models: other captions of an image, other labels, and how sure a correction is."""

import copy

import numpy as np
import pytest

from curate.recipe import ScoreTable
from curate.scoring.labels import LabelModel, corrections
from curate.scoring.moments import ClassMoments, PairMoments
from curate.scoring.pairs import PairModel

TABLE = ScoreTable()


def pair_model(rng: np.random.Generator) -> tuple[PairModel, np.ndarray, np.ndarray]:
    image = rng.normal(size=(80, 6)).astype(np.float32)
    text = (image[:, :4] + rng.normal(0, 0.3, (80, 4))).astype(np.float32)
    moments = PairMoments.zeros(6, 4)
    moments.add(image, text)
    model = PairModel(moments, TABLE)
    return model, *model.project(image, text)


def test_another_caption_is_scored_as_if_the_first_pair_had_never_been_seen(rng: np.random.Generator) -> None:
    model, x, y = pair_model(rng)
    offered = y[3:4] + 0.2
    seen = np.append(np.ones(80, dtype=np.bool_), False)
    pvi = model.mismatched(
        np.concatenate([x, x[7:8]]), np.concatenate([y, offered]), seen, np.array([80]), np.array([7])
    )
    without = copy.deepcopy(model)
    one = np.ones((1, 1))
    left, right = np.concatenate([one, x[7:8]], axis=1), np.concatenate([one, y[7:8]], axis=1)
    without._sums.n -= 1
    without._sums.x -= left.T @ left
    without._sums.y -= right.T @ right
    without._sums.xy -= left.T @ right
    without._families = None
    expected = without.score(x[7:8], offered, np.zeros(1, dtype=np.bool_))["pvi"]
    np.testing.assert_allclose(pvi, expected, atol=1e-3)
    assert abs(pvi[0] - model.score(x[7:8], offered, np.zeros(1, dtype=np.bool_))["pvi"][0]) > 1e-2  # it matters


@pytest.mark.parametrize("votes", [False, True])
def test_surprise_under_every_class_is_that_of_the_label_and_of_foreign_ones(
    votes: bool, rng: np.random.Generator
) -> None:
    label = np.arange(60) % 3
    x = (np.eye(5)[label] + rng.normal(0, 0.4, (60, 5))).astype(np.float32)
    moments = ClassMoments.zeros(5)
    moments.add(x, label, 4)  # the fourth class has no rows
    model = LabelModel(moments, TABLE)
    place, seen = np.arange(60), np.ones(60, dtype=np.bool_)
    if votes:
        model.refer([(x, label)])
    z = model.project(x)
    bits = model.every(z, label, seen, place)
    own = model.score(z, label, seen, place)["s1_label"]
    np.testing.assert_allclose(bits[np.arange(60), label], own, atol=1e-4)
    foreign = model.foreign(z, label, seen, place)
    for c in range(3):
        np.testing.assert_allclose(bits[label != c, c], foreign.s1(c), atol=1e-9)
    assert np.isinf(bits[:, 3]).all()


def test_a_correction_weighs_the_label_that_a_row_bears() -> None:
    # q = (1/2, 3/8, 1/8); the label is class 1, wrong with probability 1/5, each other class then 1/10
    bits = -np.log2(np.array([[4, 3, 1], [4, 3, 1], [0, 1, 0]]) / 8 + 1e-300)
    best, share = corrections(bits, np.array([1, 0, 1]), np.array([0.2, 0.5, 0.2]))
    assert best.tolist() == [0, 1, 0]  # ties go to the lowest
    joint = np.array([4 * 0.1, 3 * 0.8, 1 * 0.1])
    np.testing.assert_allclose(share[0], joint[0] / joint.sum())
    joint = np.array([4 * 0.5, 3 * 0.25, 1 * 0.25])
    np.testing.assert_allclose(share[1], joint[1] / joint.sum())
    assert share[2] == pytest.approx(0.0, abs=1e-12)


def test_the_probability_of_a_correction_is_the_share_of_right_ones() -> None:
    """Classes that overlap, one label in ten flipped: corrections said to be sure to p are right in p or more."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 4000)
    x = (1.1 * np.eye(8)[true] + rng.normal(0, 0.45, (4000, 8))).astype(np.float32)
    label = np.where(rng.random(4000) < 0.1, (true + rng.integers(1, 4, 4000)) % 4, true)
    moments = ClassMoments.zeros(8)
    moments.add(x, label, 4)
    model = LabelModel(moments, TABLE)
    model.refer([(x, label)])
    place = np.arange(4000)
    bits = model.every(model.project(x), label, np.ones(4000, dtype=np.bool_), place)
    best, share = corrections(bits, label, np.full(4000, 0.1))
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 1.0)):
        at = (share >= low) & (share < high)
        assert at.sum() > 15
        assert (best[at] == true[at]).mean() > low - 0.05, (low, high)
