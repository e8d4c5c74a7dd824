"""What each method picks, against the plain version of its paper."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curate
from curate.errors import UsageError
from curate_kernels.arrays import unit_rows
from curate_selectors.coverage.kcenter import KCenter
from curate_selectors.errors import SelectorError
from curate_selectors.infogrowth import InfoGrowth, InfoGrowthLabelled, class_surprise, stream_gains
from curate_selectors.types import Batch, Candidates, Stage
from curate_selectors.uniform import Random


def unit(rng: np.random.Generator, n: int, d: int = 8) -> np.ndarray:
    return unit_rows(rng.normal(size=(n, d)).astype(np.float32))


def of(x: np.ndarray) -> Candidates:
    return Candidates(n=len(x), x=x)


# --- random


def test_random_takes_every_row_equally_often() -> None:
    taken = np.zeros(20)
    for seed in range(2000):
        taken[Random().select(Candidates(n=20), 5, seed).index] += 1
    assert np.abs(taken / 2000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_random_tells_its_inclusion_probability() -> None:
    np.testing.assert_allclose(Random().select(Candidates(n=20), 5, 0).probability, 0.25)


# --- infogrowth, the sampler


def test_rows_are_drawn_in_proportion_to_their_gain() -> None:
    gain = np.array([1, 2, 3, 4], dtype=np.float32)
    first = np.zeros(4)
    for seed in range(4000):
        first[InfoGrowth(quantile=1.0).select(Candidates(n=4, scores={"gain": gain}), 1, seed).index[0]] += 1
    np.testing.assert_allclose(first / 4000, gain / gain.sum(), atol=0.03)


def test_gains_above_the_quantile_weigh_the_same() -> None:
    gain = np.array([1, 1, 1, 100], dtype=np.float32)
    picks = [
        InfoGrowth(quantile=0.5).select(Candidates(n=4, scores={"gain": gain}), 1, seed).index[0]
        for seed in range(2000)
    ]
    assert np.mean(np.array(picks) == 3) == pytest.approx(0.25, abs=0.04)


def test_rows_without_gain_come_last_in_order() -> None:
    gain = np.array([0, 1, 0, 1], dtype=np.float32)
    index = InfoGrowth().select(Candidates(n=4, scores={"gain": gain}), 4, 0).index
    assert set(index[:2]) == {1, 3}
    assert index[2:].tolist() == [0, 2]


def test_gains_that_are_all_zero_give_a_uniform_draw() -> None:
    data = Candidates(n=4, scores={"gain": np.zeros(4, dtype=np.float32)})
    assert {int(InfoGrowth().select(data, 1, seed).index[0]) for seed in range(50)} == {0, 1, 2, 3}


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_neighbour_is_refused(k: int) -> None:
    with pytest.raises(SelectorError, match="k"):
        InfoGrowth(k=k)


@pytest.mark.parametrize("gain", [[1.0, 2.0], [1.0, np.nan, 1.0]])
def test_gains_that_do_not_fit_are_refused(gain: list[float]) -> None:
    with pytest.raises(SelectorError, match="3 finite numbers"):
        InfoGrowth().select(Candidates(n=3, scores={"gain": np.float32(gain)}), 1, 0)


def test_without_gains_and_embeddings_there_is_nothing_to_go_by() -> None:
    with pytest.raises(SelectorError, match="'infogrowth' needs embeddings"):
        InfoGrowth().select(Candidates(n=3), 1, 0)


def test_inclusion_probability_is_how_often_a_row_is_taken() -> None:
    data = Candidates(n=40, scores={"gain": np.linspace(0.1, 1, 40, dtype=np.float32)})
    taken, told = np.zeros(40), np.zeros(40)
    for seed in range(3000):
        chosen = InfoGrowth(quantile=1.0).select(data, 20, seed)
        taken[chosen.index] += 1
        told[chosen.index] = chosen.probability
    np.testing.assert_allclose(told, taken / 3000, atol=0.04)


def test_gain_of_each_pick_is_told() -> None:
    gain = np.array([1, 2, 3, 4], dtype=np.float32)
    chosen = InfoGrowth().select(Candidates(n=4, scores={"gain": gain}), 3, 0)
    np.testing.assert_array_equal(chosen.gain, gain[chosen.index])


# --- infogrowth, the gains


def plain_gains(x: np.ndarray, k: int) -> list[float]:
    gains = []
    for i in range(len(x)):
        nearest = np.sort(x[:i] @ x[i])[::-1][:k]
        gains.append(float(np.mean(1 - nearest)) if i else 1.0)
    return gains


def test_gains_by_hand() -> None:
    x = np.array([[1, 0], [0, 1], [1, 0], [-1, 0]], dtype=np.float32)
    np.testing.assert_allclose(stream_gains(x, 2), [1, 1, (0 + 1) / 2, (1 + 2) / 2], atol=1e-6)


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 99))
def test_gains_equal_the_plain_loop(n: int, k: int, seed: int) -> None:
    x = unit(np.random.default_rng(seed), n, 4)
    np.testing.assert_allclose(stream_gains(x, k), plain_gains(x, k), atol=1e-5)


def test_gains_equal_the_plain_loop_across_blocks(rng: np.random.Generator) -> None:
    x = unit(rng, 600)
    np.testing.assert_allclose(stream_gains(x, 4), plain_gains(x, 4), atol=1e-5)


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 99))
def test_the_class_term_equals_the_plain_loop(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, label = unit(rng, n, 4), rng.integers(-1, 3, n)
    np.testing.assert_allclose(class_surprise(x, label, k), plain_surprise(x, label, k), atol=1e-6)


def plain_surprise(x: np.ndarray, label: np.ndarray, k: int) -> list[float]:
    terms = []
    for i in range(len(x)):
        nearest = np.argsort(-(x[:i] @ x[i]), kind="stable")[:k]
        votes = [label[j] for j in nearest if label[j] >= 0]
        known = votes and label[i] >= 0
        terms.append(1 - votes.count(label[i]) / len(votes) if known else 0.0)
    return terms


def test_the_class_term_across_blocks_prefers_wrong_labels(rng: np.random.Generator) -> None:
    label = np.arange(600) % 3
    x = unit(rng, 3)[label] + 0.01 * rng.normal(size=(600, 8)).astype(np.float32)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    wrong = label.copy()
    wrong[500:510] = (wrong[500:510] + 1) % 3
    np.testing.assert_allclose(class_surprise(x, wrong, 4), plain_surprise(x, wrong, 4), atol=1e-6)
    chosen = InfoGrowthLabelled().select(Candidates(n=600, x=x, label=wrong), 20, 0)
    assert np.isin(np.arange(500, 510), chosen.index).sum() >= 4  # .3 by chance
    with pytest.raises(SelectorError, match="needs labels"):
        InfoGrowthLabelled().select(Candidates(n=600, x=x), 20, 0)


# --- infogrowth, the online decision


def batch(image: list[list[float]], captions: list[list[float] | None] | None = None, **changes: object) -> Batch:
    """A batch against an empty kept set; a caption of None is none."""
    b = len(image)
    captions = captions or [None] * b
    width = max([len(c) for c in captions if c], default=0)
    fields = {
        "stage": np.full(b, Stage.FREE, dtype=np.uint8),
        "image": unit_rows(np.array(image, dtype=np.float32).reshape(b, 2)),
        "text": unit_rows(np.array([c or [0.0] * width for c in captions], dtype=np.float32).reshape(b, width)),
        "has_text": np.array([c is not None for c in captions], dtype=bool),
        "pixel": np.full(b, -1, dtype=np.int64),
        "alike": np.zeros((b, b), dtype=bool),
        "luck": np.zeros(b),
        "kept_twin": np.full(b, -1, dtype=np.int64),
        "top_image": np.full((b, 4), -np.inf, dtype=np.float32),
        "top_text": np.full((b, 4), -np.inf, dtype=np.float32),
    }
    return Batch(**fields | changes)


RULE = InfoGrowth(epsilon=0.05, epsilon_text=0.05)


def test_equal_pixels_inside_a_batch_are_duplicates_of_the_first() -> None:
    decision = RULE.decide(batch([[1, 0], [0, 1], [1, 1]], pixel=np.array([7, 8, 7])))
    assert decision.admitted.tolist() == [True, True, False]
    assert decision.batch_twin.tolist() == [-1, -1, 0]


def test_near_duplicate_inside_a_batch_is_dropped_and_a_less_near_one_kept() -> None:
    decision = RULE.decide(batch([[1, 0], [1, 0.2], [1, 0.6]]))
    assert decision.admitted.tolist() == [True, False, True]
    assert decision.batch_twin.tolist() == [-1, 0, -1]


def test_same_image_with_another_caption_is_another_sample() -> None:
    decision = RULE.decide(batch([[1, 0]] * 3, [[1, 0], [0, 1], [1, 0]]))
    assert decision.admitted.tolist() == [True, True, False]
    assert decision.batch_twin.tolist() == [-1, -1, 0]


def test_gain_of_a_pair_is_the_mean_of_both_and_of_a_lone_image_its_own() -> None:
    decision = RULE.decide(batch([[1, 0], [0, 1], [1, 1]], [[1, 0], [1, 1], None]))
    np.testing.assert_allclose(decision.gain_image, [1, 1, 1 - np.sqrt(0.5)], atol=1e-6)
    np.testing.assert_allclose(decision.gain_text, [1, 1 - np.sqrt(0.5), np.nan], atol=1e-6)
    np.testing.assert_allclose(decision.gain, [1, (2 - np.sqrt(0.5)) / 2, 1 - np.sqrt(0.5)], atol=1e-6)


def test_gated_row_is_scored_but_neither_admitted_nor_a_reference() -> None:
    stage = np.array([Stage.GATED, Stage.FREE, Stage.GATED], dtype=np.uint8)
    decision = RULE.decide(batch([[1, 0]] * 3, stage=stage))
    assert decision.admitted.tolist() == [False, True, False]
    assert decision.batch_twin.tolist() == [-1, -1, 1]
    np.testing.assert_allclose(decision.gain, [1, 1, 0], atol=1e-6)


def test_row_that_is_out_gets_nothing() -> None:
    decision = RULE.decide(batch([[0, 0], [1, 0]], stage=np.array([Stage.OUT, 0], dtype=np.uint8)))
    assert decision.admitted.tolist() == [False, True]
    assert np.isnan(decision.gain[0])
    assert decision.gain[1] == 1.0


def test_row_that_duplicates_a_kept_one_is_not_admitted() -> None:
    decision = RULE.decide(batch([[1, 0], [1, 0]], kept_twin=np.array([3, -1])))
    assert decision.admitted.tolist() == [False, True]


def test_empty_batch_is_decided() -> None:
    assert RULE.decide(batch([])).admitted.tolist() == []


def test_captions_that_do_not_matter_do_not_keep_a_duplicate() -> None:
    """With epsilon_text = 2 a captioned row duplicates an uncaptioned one, as in the search of the kept set."""
    decision = InfoGrowth(epsilon=0.05, epsilon_text=2.0).decide(batch([[1, 0]] * 3, [None, [1, 0], [-1, 0]]))
    assert decision.batch_twin.tolist() == [-1, 0, 0]


# --- kcenter


def plain_kcenter(x: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """Farthest point first, from the row nearest to the mean; argmax takes the lowest of equals."""
    index = [int(np.argmax(x @ x.mean(axis=0)))]
    gain = [1.0]
    while len(index) < count:
        distance = np.maximum(1 - (x @ x[index].T).max(axis=1), 0)
        distance[index] = -1
        index.append(int(np.argmax(distance)))
        gain.append(float(distance[index[-1]]))
    return index[:count], gain[:count]


@pytest.mark.parametrize("block", [1, 7, 64, 512])
def test_kcenter_equals_the_plain_loop(block: int, rng: np.random.Generator) -> None:
    x = unit(rng, 300, 6)
    chosen = KCenter(block).select(of(x), 80, 0)
    index, gain = plain_kcenter(x, 80)
    assert chosen.index.tolist() == index
    np.testing.assert_allclose(chosen.gain, gain, atol=1e-6)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=30), st.integers(1, 12), st.data())
def test_kcenter_ties_go_to_the_lowest_row(corners: list[int], block: int, data: st.DataObject) -> None:
    """Corners of a cube: every product is exact, and most distances tie."""
    x = np.array([[(c >> bit & 1) - 0.5 for bit in range(4)] for c in corners], dtype=np.float32)
    count = data.draw(st.integers(1, len(x)))
    assert KCenter(block).select(of(x), count, 0).index.tolist() == plain_kcenter(x, count)[0]


def test_kcenter_on_equal_rows_goes_in_order() -> None:
    x = np.tile(np.float32([0.5, 0.5, 0.5, 0.5]), (30, 1))
    chosen = KCenter(8).select(of(x), 10, 0)
    assert chosen.index.tolist() == list(range(10))
    assert chosen.gain.tolist() == [1.0] + [0.0] * 9


def test_kcenter_by_hand() -> None:
    x = np.array([[1, 0], [0.8, 0.6], [0.6, -0.8], [-1, 0]], dtype=np.float32)  # the mean points to row 0
    chosen = KCenter().select(of(x), 3, 0)
    assert chosen.index.tolist() == [0, 3, 2]
    np.testing.assert_allclose(chosen.gain, [1, 2, 0.4], atol=1e-6)


def test_kcenter_gains_never_grow(rng: np.random.Generator) -> None:
    gain = KCenter(16).select(of(unit(rng, 200)), 200, 0).gain
    assert (np.diff(gain[1:]) <= 1e-6).all()


@pytest.mark.parametrize("seed", range(8))
def test_kcenter_radius_is_at_most_twice_the_best(seed: int) -> None:
    """In the angle, which is a metric and orders pairs as the cosine does."""
    x = unit(np.random.default_rng(seed), 10, 3)
    angle = np.arccos(np.clip(x @ x.T, -1, 1))

    def radius(centres: tuple[int, ...]) -> float:
        return float(angle[:, centres].min(axis=1).max())

    best = min(radius(centres) for centres in combinations(range(10), 3))
    assert radius(tuple(KCenter().select(of(x), 3, 0).index)) <= 2 * best + 1e-6


def test_labels_of_another_dtype_are_the_same_classes() -> None:
    rng = np.random.default_rng(0)
    x, y, t, ty = rng.normal(size=(90, 8)), rng.integers(0, 2, 90), rng.normal(size=(9, 8)), rng.integers(0, 2, 9)
    one = curate.select(x, method="knn-shapley", labels=y, target=t, target_labels=ty, budget=8)
    two = curate.select(x, method="knn-shapley", labels=y.astype(float), target=t, target_labels=ty, budget=8)
    assert one.index.tolist() == two.index.tolist()
    assert one.gain.any()
    with pytest.raises(UsageError, match="no sample has a label of the target's"):
        curate.select(x, method="knn-shapley", labels=y + 2, target=t, target_labels=ty, budget=8)
