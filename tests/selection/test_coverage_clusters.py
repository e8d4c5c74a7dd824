"""Methods that cluster first."""

import numpy as np
import pytest

from curate_kernels.arrays import unit_rows
from curate_selectors.coverage import semdedup
from curate_selectors.coverage.clusters import assign, lloyd, spherical_centres
from curate_selectors.coverage.hierarchical import Hierarchical, spread_centres
from curate_selectors.coverage.prototypes import Prototypes
from curate_selectors.coverage.rank import clusters_of
from curate_selectors.coverage.semdedup import D4, SemDeDup, similarity_before
from curate_selectors.errors import SelectorError
from curate_selectors.types import Candidates


def balls(size: list[int], d: int = 16, seed: int = 0, width: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around orthogonal centres, so many each, shuffled, and whose they are."""
    rng = np.random.default_rng(seed)
    at = rng.permutation(np.repeat(np.arange(len(size)), size))
    return unit_rows((np.eye(d)[at] + width * rng.normal(size=(at.size, d))).astype(np.float32)), at


def of(x: np.ndarray) -> Candidates:
    return Candidates(n=len(x), x=x)


# --- k-means


def test_rounds_never_lower_the_sum_of_cosines() -> None:
    x = unit_rows(np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32))
    centre, sums = x[:20], []
    for _ in range(8):
        sums.append(assign(x, centre)[1].sum(dtype=float))
        centre = lloyd(x, centre, 1)
    assert (np.diff(sums) > -1e-3).all()
    assert sums[-1] > sums[0]


def test_assignment_is_the_nearest_centre_over_several_tiles() -> None:
    rng = np.random.default_rng(1)
    x, centre = (unit_rows(rng.normal(size=(n, 6)).astype(np.float32)) for n in (5000, 9))
    at, sim = assign(x, centre)
    full = x @ centre.T
    assert (at == full.argmax(axis=1)).all()
    np.testing.assert_allclose(sim, full.max(axis=1), atol=1e-6)


def test_a_centre_that_lost_its_rows_goes_where_the_error_is_largest() -> None:
    x, at = balls([40, 40, 1])
    start = np.stack([x[at == 0][0], x[at == 1][0], -np.ones(16, dtype=np.float32) / 4])
    label = assign(x, lloyd(x, start, 10))[0]
    assert np.unique(label).size == 3
    assert (label[at == 2] != label[at == 0][0]).all()


@pytest.mark.parametrize("clusters", [1, 3, 50])
def test_as_many_centres_as_rows_at_most(clusters: int) -> None:
    x, _ = balls([3, 4])
    assert spherical_centres(x, clusters, 5, np.random.default_rng(0)).shape == (min(clusters, 7), 16)


# --- SemDeDup and D4


def literal_semdedup(x: np.ndarray, cluster: np.ndarray, far: np.ndarray, epsilon: float, sign: int) -> set[int]:
    """Rows that remain: inside a cluster, sorted, column maxima of the upper triangle up to 1 - ε."""
    kept: set[int] = set()
    for c in np.unique(cluster):
        rows = np.flatnonzero(cluster == c)
        rows = rows[np.argsort(-sign * far[rows], kind="stable")]
        sims = np.triu(x[rows] @ x[rows].T, 1)
        kept |= set(rows[sims.max(axis=0) <= 1 - epsilon].tolist())
    return kept


@pytest.mark.parametrize("keep", ["far", "near"])
@pytest.mark.parametrize("epsilon", [0.06, 0.09, 0.12])
def test_semdedup_keeps_what_the_published_form_keeps(keep: str, epsilon: float) -> None:
    x, _ = balls([60, 40, 20])
    cluster, far = clusters_of(x, 4, 5)
    kept = literal_semdedup(x, cluster, far, epsilon, 1 if keep == "far" else -1)
    assert 4 < len(kept) < 120
    assert set(SemDeDup(keep, 4).select(of(x), len(kept), 5).index.tolist()) == kept


def test_of_two_near_duplicates_the_one_that_is_asked_for_remains() -> None:
    """A published method says the near one in words and the far one in its algorithm."""
    x = unit_rows(np.float32([[1, 0, 0.30], [1, 0, 0.32], [1, 0, -0.3], [1, 0.3, 0], [1, -0.3, 0]]))
    for keep, gone in (("far", 0), ("near", 1)):
        assert set(range(5)) - set(SemDeDup(keep, 1).select(of(x), 4, 0).index.tolist()) == {gone}


def test_similarity_before_over_tiles_and_cut_clusters() -> None:
    x = unit_rows(np.random.default_rng(2).normal(size=(1500, 5)).astype(np.float32))
    far = np.random.default_rng(3).random(1500).astype(np.float32)
    cluster = np.arange(1500) % 2
    plain = np.full(1500, -1.0)
    for c in range(2):
        rows = np.flatnonzero(cluster == c)
        rows = rows[np.argsort(-far[rows])]
        for place in range(1, rows.size):
            plain[rows[place]] = (x[rows[:place]] @ x[rows[place]]).max()
    np.testing.assert_allclose(similarity_before(x, cluster, far, True), plain, atol=1e-6)
    long = np.tile(x, (6, 1))  # 9,000 rows of one cluster: cut, yet copies meet
    sim = similarity_before(long, np.zeros(9000, dtype=np.int64), np.tile(far, 6), True)
    assert (sim > 0.999).sum() >= 7000


class Sliced:
    """Rows that can only be sliced; the largest slice taken is remembered."""

    ndim = 2

    def __init__(self, x: np.ndarray) -> None:
        self._x, self.shape, self.largest = x, x.shape, 0

    def __getitem__(self, at: slice) -> np.ndarray:
        assert isinstance(at, slice)
        self.largest = max(self.largest, len(range(*at.indices(self.shape[0]))))
        return self._x[at].copy()


def test_semdedup_in_parts_of_clusters_chooses_what_it_does_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit_rows(np.random.default_rng(4).normal(size=(9000, 8)).astype(np.float32))
    x[4000:4100] = x[:100]
    whole = SemDeDup(clusters=12).select(of(x), 9000, 1)
    monkeypatch.setattr(semdedup, "_PART_BYTES", 4 * 8 * 1500)
    sliced = Sliced(x)
    parts = SemDeDup(clusters=12).select(Candidates(n=9000, x=sliced), 9000, 1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(parts.index, whole.index)
    np.testing.assert_allclose(parts.gain, whole.gain, atol=1e-6)
    assert sliced.largest <= 4096
    assert set(whole.index[-100:].tolist()) <= {*range(100), *range(4000, 4100)}


def test_d4_removes_copies_first_and_then_the_typical() -> None:
    x, _ = balls([30, 30])
    twice = np.concatenate([x, x[:20]])
    order = D4(share=0.75, clusters=2).select(of(twice), 80, 0)
    left = order.index[:60]
    assert set(left % 60) == set(range(60))  # one of each pair
    far = clusters_of(twice[np.sort(left)], 2, 0)[1]
    np.testing.assert_allclose(order.gain[:60], np.sort(far)[::-1], atol=1e-6)
    assert (order.gain[60:] == 0).all()


# --- prototypes


def test_prototypes_keep_the_far_or_the_near() -> None:
    x, _ = balls([50, 50])
    far = clusters_of(x, 2, 0)[1]
    for keep, sign in (("far", -1), ("near", 1)):
        assert (
            Prototypes(keep, 2).select(of(x), 20, 0).index.tolist()
            == np.argsort(sign * far, kind="stable")[:20].tolist()
        )
    with pytest.raises(SelectorError, match="'far' or 'near'"):
        Prototypes("hard")


# --- hierarchical k-means


def test_every_cluster_gives_its_share_and_small_ones_all() -> None:
    size = [200, 100, 60, 20]
    x, at = balls(size, width=0.03)
    chosen = Hierarchical(levels=(4,)).select(of(x), 110, 0)
    share = np.bincount(at[chosen.index], minlength=4)
    assert share.tolist() == [30, 30, 30, 20]
    np.testing.assert_allclose(chosen.probability, (share / size)[at[chosen.index]], rtol=1e-6)


def test_budgets_are_shared_at_the_top_before_the_bottom() -> None:
    """Six balls in two groups far apart, of five and one: each group gives half."""
    rng = np.random.default_rng(0)
    centres = np.zeros((6, 16))
    centres[:5, 0], centres[np.arange(5), np.arange(5) + 1], centres[5, 15] = 1, 0.15, 1
    at = np.repeat(np.arange(6), 40)
    x = unit_rows((centres[at] + 0.003 * rng.normal(size=(240, 16))).astype(np.float32))
    for seed in range(3):
        assert (at[Hierarchical((6, 2)).select(of(x), 40, seed).index] == 5).sum() == 20


def test_leaves_nearest_to_their_centre() -> None:
    x, at = balls([30, 30])
    chosen = Hierarchical((2,), resample=0, leaf="nearest").select(of(x), 10, 0)
    centre = unit_rows(np.stack([x[at == c].mean(axis=0) for c in range(2)]))
    for c in range(2):
        rows = np.flatnonzero(at == c)
        best = rows[np.argsort(-(x[rows] @ centre[c]))][:5]
        assert set(chosen.index[at[chosen.index] == c].tolist()) == set(best.tolist())


def test_resampled_centres_spread_over_the_support() -> None:
    x, at = balls([2000, 40, 40, 40], width=0.25)
    plain, spread = (
        np.mean(
            [
                np.bincount(
                    assign(spread_centres(of(x), 16, resample, 10, np.random.default_rng(s)), np.eye(16)[:4])[0]
                )[0]
                for s in range(3)
            ]
        )
        for resample in (0, 10)
    )
    assert spread <= plain
    assert (at == 0).mean() > 0.9


@pytest.mark.parametrize(("levels", "count"), [((5,), 3), ((9, 3), 2), ((9, 3), 7), ((9, 3), 31)])
def test_probabilities_hold_where_budgets_cannot_be_shared_evenly(
    levels: tuple[int, ...], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree is the same for all seeds here: chance lies in the order of clusters and of rows."""
    x, _ = balls([14, 9, 7, 4, 3, 3, 2, 2, 1], width=0.3)
    nodes, sim = Hierarchical(levels)._tree(of(x), levels, np.random.default_rng(0))
    monkeypatch.setattr(Hierarchical, "_tree", lambda *_: (nodes, sim))
    for leaf in ("random", "nearest"):
        taken, told, sums = np.zeros(45), np.zeros(45), []
        for seed in range(1200):
            chosen = Hierarchical(levels, leaf=leaf).select(of(x), count, seed)
            taken[chosen.index] += 1 / 1200
            told[chosen.index] = chosen.probability
            sums.append((1 / chosen.probability).sum())
        np.testing.assert_allclose(taken, told, atol=5 * np.sqrt(0.25 / 1200))
        if leaf == "random":
            assert abs(np.mean(sums) - 45) < 4 * np.std(sums) / np.sqrt(1200) + 1e-3


@pytest.mark.parametrize("row", [0.0, 1.0])
def test_more_clusters_than_different_rows_are_no_trouble(row: float) -> None:
    data = Candidates(n=300, x=unit_rows(np.full((300, 12), row, dtype=np.float32)))
    assert np.unique(Hierarchical().select(data, 30, 0).index).size == 30


@pytest.mark.filterwarnings("error")
def test_rows_of_any_finite_length_are_scaled_to_one() -> None:
    x = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    x[3] = 0
    for factor in (1e-38, 1e-30, 1e19, 1e37):
        scaled = unit_rows(x * np.float32(factor))
        assert np.allclose(scaled, unit_rows(x), atol=1e-5)
    assert not unit_rows(x)[3].any()
