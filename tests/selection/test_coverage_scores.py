"""Methods that balance difficulty, against the plain version of their papers."""

import numpy as np
import pytest
from scipy.stats import beta

from curate_kernels.arrays import unit_rows
from curate_selectors.coverage.ccs import Ccs
from curate_selectors.coverage.d2 import D2
from curate_selectors.coverage.dual import Dual
from curate_selectors.coverage.moderate import Moderate
from curate_selectors.coverage.zcore import ZCore, draw_probes
from curate_selectors.errors import SelectorError
from curate_selectors.types import Candidates


def rows(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def scored(n: int, seed: int = 0, **more: object) -> Candidates:
    hard = np.random.default_rng(seed).gamma(2.0, size=n).astype(np.float32)
    return Candidates(n=n, x=rows(n), scores={"el2n": hard}, **more)


# --- CCS


def literal_ccs(hard: np.ndarray, hardest: float, strata: int, count: int) -> list[int]:
    """Budgets of the strata: the smallest first gets its fair share of what is left, the remainder is not lost."""
    left = np.sort(hard)[: hard.size - int(hardest * hard.size)]
    size, _ = np.histogram(left, bins=strata)
    budget, given = [0] * strata, 0
    for place, s in enumerate(np.argsort(size, kind="stable")):
        budget[s] = min(int(size[s]), (count - given) // (strata - place))
        given += budget[s]
    return budget


@pytest.mark.parametrize("count", [4, 60, 97, 151])
def test_strata_share_as_published_and_the_remainder_is_not_lost(count: int) -> None:
    data = scored(200)
    hard = data.scores["el2n"].astype(float)
    chosen = Ccs(strata=10).select(data, count, 0)
    left = np.sort(hard)[:180]
    edges = np.histogram_bin_edges(left, 10)
    share, _ = np.histogram(hard[chosen.index], bins=edges)
    size, _ = np.histogram(left, bins=edges)
    # Of strata of one size any may have the row that the other does not; the rest is where the paper puts it.
    assert sorted(zip(size, share, strict=True)) == sorted(zip(size, literal_ccs(hard, 0.1, 10, count), strict=True))
    stratum = np.clip(np.searchsorted(edges, hard[chosen.index], side="right") - 1, 0, 9)
    mean = np.array([share[size == s].sum() / max(size[size == s].sum(), 1) for s in size])
    np.testing.assert_allclose(chosen.probability, mean[stratum], rtol=1e-6)


def test_strata_of_one_size_have_the_same_chance() -> None:
    """Fewer rows than strata: the largest strata have them, between equal ones by chance."""
    hard = np.repeat(np.arange(12) + 0.5, [3] * 8 + [5] * 4).astype(np.float32)
    data = Candidates(n=44, scores={"el2n": hard})
    taken, told, sums = np.zeros(44), np.zeros(44), []
    for seed in range(1000):
        chosen = Ccs(hardest=0.0, strata=12).select(data, 8, seed)
        taken[chosen.index] += 1 / 1000
        told[chosen.index] = chosen.probability
        sums.append((1 / chosen.probability).sum())
    np.testing.assert_allclose(taken, told, atol=0.07)
    np.testing.assert_allclose(told, np.repeat([4 / 24, 4 / 20], [24, 20]), rtol=1e-6)
    assert abs(np.mean(sums) - 44) < 1e-3


def test_the_hardest_come_last_and_easier_ones_first() -> None:
    data = scored(50)
    order = Ccs(hardest=0.2, strata=5).select(data, 50, 0).index
    assert order[40:].tolist() == np.argsort(data.scores["el2n"], kind="stable")[40:].tolist()


def test_a_score_that_was_named_and_is_missing_is_an_error() -> None:
    with pytest.raises(SelectorError, match="needs the score 'aum'"):
        Ccs(score="aum").select(scored(5), 2, 0)


def test_without_a_score_the_distance_to_the_class_takes_its_place() -> None:
    x, label = rows(60), np.arange(60) % 2
    centre = unit_rows(np.stack([x[label == c].sum(axis=0) for c in range(2)]))
    far = 1 - np.einsum("ij,ij->i", x, centre[label])
    given, computed = (
        Ccs().select(Candidates(60, x, label=label, scores=scores), 20, 3).index.tolist()
        for scores in ({"el2n": far.astype(np.float32)}, {})
    )
    assert given == computed


# --- D2


def literal_d2(x: np.ndarray, hard: np.ndarray, count: int, k: int, gamma: float) -> list[int]:
    distance = np.sqrt(np.maximum(2 - 2 * (x @ x.T).astype(float), 0))
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1, kind="stable")[:, :k]
    score = np.array([hard[i] + sum(np.exp(-distance[i, j]) * hard[j] for j in near[i]) for i in range(len(x))])
    chosen = []
    for _ in range(count):
        best = int(np.argmax(score))
        chosen.append(best)
        for j in near[best]:
            score[j] -= np.exp(-gamma * distance[best, j]) * max(score[best], 0)
        score[best] = -np.inf
        score[chosen] = -np.inf
    return chosen


@pytest.mark.parametrize(("k", "gamma"), [(5, 0.1), (1, 1.0), (20, 3.0)])
def test_d2_is_the_dense_form(k: int, gamma: float) -> None:
    data = scored(150, 2)
    hard = data.scores["el2n"].astype(float)
    chosen = D2(neighbors=k, gamma=gamma).select(data, 150, 0)
    assert chosen.index.tolist() == literal_d2(data.x, hard, 150, k, gamma)


def test_d2_takes_hard_rows_but_not_their_copies() -> None:
    x = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    data = Candidates(4, x, scores={"el2n": np.float32([3, 2.9, 1, 0.5])})
    assert D2(neighbors=1).select(data, 3, 0).index.tolist()[:2] == [0, 2]


def test_negative_scores_do_not_turn_messages_around() -> None:
    data = scored(80)
    shifted = Candidates(80, data.x, scores={"el2n": data.scores["el2n"] - np.float32(data.scores["el2n"].min()) - 5})
    base = Candidates(80, data.x, scores={"el2n": data.scores["el2n"] - data.scores["el2n"].min()})
    assert D2().select(shifted, 20, 0).index.tolist() == D2().select(base, 20, 0).index.tolist()


def test_picks_that_fell_below_zero_do_not_raise_their_neighbours() -> None:
    """To the last row: each gain is at most what messages made of it, and no copy climbs over a row that is alone."""
    x = np.eye(5, dtype=np.float32)[[0, 0, 0, 0, 1, 2]]
    data = Candidates(6, x, scores={"el2n": np.float32([3, 2.9, 2.8, 2.7, 0, 0])})
    chosen = D2(neighbors=3).select(data, 6, 0)
    assert (np.diff(chosen.gain) <= 0).all()
    assert chosen.index.tolist()[1:3] == [4, 5]


# --- moderate


def test_moderate_takes_the_same_share_of_each_class_nearest_to_its_own_median() -> None:
    """A published form takes the last class's count for all."""
    rng = np.random.default_rng(0)
    x, label = rows(90), np.repeat([0, 1, 2], [60, 20, 10])[rng.permutation(90)]
    chosen = Moderate().select(Candidates(90, x, label=label), 45, 0).index
    for c, size in enumerate([60, 20, 10]):
        mine = np.flatnonzero(label == c)
        far = 1 - x[mine] @ unit_rows(x[mine].sum(axis=0, keepdims=True))[0]
        best = mine[np.argsort(np.abs(far - np.median(far)), kind="stable")]
        assert set(chosen[label[chosen] == c].tolist()) == set(best[: size // 2].tolist())


# --- zcore


def literal_zcore(x: np.ndarray, pair: np.ndarray, at: np.ndarray, near: int) -> np.ndarray:
    score = np.zeros(len(x))
    for dims, point in zip(pair, at, strict=True):
        plane = x[:, dims]
        best = np.argmin(np.abs(plane - point).sum(axis=1))
        score[best] += 1
        distance = np.abs(plane - plane[best]).sum(axis=1)
        others = np.argsort(distance, kind="stable")
        others = others[others != best][:near]
        penalty = distance[others].astype(float) ** -4
        score[others] -= penalty / penalty.sum()
    return score


def test_zcore_scores_are_those_of_the_plain_loop() -> None:
    x, method = rows(200), ZCore(probes=300, near=30)
    rng = np.random.default_rng(5)
    start = rng.random(200)
    pair, at = draw_probes(x.min(axis=0), np.median(x, axis=0), x.max(axis=0), 300, rng)
    np.testing.assert_allclose(
        method.scores(x, np.random.default_rng(5)), start + literal_zcore(x, pair, at, 30), atol=1e-5
    )


def test_probes_are_triangular_in_two_different_dimensions() -> None:
    low, middle, high = (np.float32([v, 10 * v, 0]) for v in (-1, 0.5, 2))
    pair, at = draw_probes(low, middle, high, 40_000, np.random.default_rng(0))
    assert (pair[:, 0] != pair[:, 1]).all()
    np.testing.assert_allclose(np.bincount(pair.ravel(), minlength=3) / 80_000, 1 / 3, atol=0.01)
    values = at[pair == 0]
    np.testing.assert_allclose(values.mean(), (-1 + 0.5 + 2) / 3, atol=0.02)
    assert (values < 0.5).mean() == pytest.approx((0.5 + 1) / 3, abs=0.02)
    assert (at[pair == 2] == 0).all()


def test_zcore_takes_one_of_many_copies_first() -> None:
    x = np.concatenate([rows(30, 4), np.tile(rows(1, 4, seed=9), (30, 1))])
    first = ZCore(probes=4000, near=10).select(Candidates(60, x), 25, 0).index
    assert (first >= 30).sum() <= 3


# --- dual


def test_the_window_moves_to_easier_rows_as_fewer_are_kept() -> None:
    data = scored(2000)
    easy = np.empty(2000)
    easy[np.argsort(-data.scores["el2n"])] = (np.arange(2000) + 0.5) / 2000
    means = [easy[Dual().select(data, count, 0).index].mean() for count in (1000, 400, 100)]
    assert (np.diff(means) > 0).all()
    assert means[-1] > 0.6


def test_draws_follow_the_beta_density() -> None:
    data = scored(1000)
    easy = np.empty(1000)
    easy[np.argsort(-data.scores["el2n"])] = (np.arange(1000) + 0.5) / 1000
    first = [easy[Dual().select(data, 1, seed).index[0]] for seed in range(400)]
    b = 15 * 0.75 * (1 - 0.999**4)
    assert abs(np.mean(first) - beta(15 - b, b).mean()) < 0.02


def test_weights_by_inverse_chances_count_everybody() -> None:
    data = scored(300)
    runs = [Dual(mean=0.5, concentration=4).select(data, 100, seed) for seed in range(30)]
    assert np.mean([(1 / run.probability).sum() for run in runs]) == pytest.approx(300, rel=0.1)
