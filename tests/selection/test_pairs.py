"""Methods for image-text pairs: the scores that they read, and their own loops against plain ones."""

from itertools import combinations

import numpy as np
import pytest

import curate
from curate.scores.table import SCORES
from curate_kernels.arrays import unit_rows
from curate_selectors.errors import SelectorError
from curate_selectors.pairs.datacomp import DatacompBasic
from curate_selectors.pairs.powered import ClipPowered, ClipPoweredOnline
from curate_selectors.pairs.scores import ClipScore, NegClip, NormSim, Vas
from curate_selectors.pairs.vas import VasD
from curate_selectors.types import Candidates


def unit(rng: np.random.Generator, n: int, d: int = 6) -> np.ndarray:
    return unit_rows(rng.normal(size=(n, d)).astype(np.float32))


# --- top by a score


@pytest.mark.parametrize("kind", [ClipScore, NegClip, NormSim, Vas])
def test_the_score_is_one_that_the_engine_computes(kind: type) -> None:
    assert kind().column in {column for row in SCORES.values() for column, _, _ in row.columns}


@pytest.mark.parametrize(("kind", "score"), [(ClipScore, "align"), (NegClip, "negclip")])
def test_wrong_captions_are_left_out(kind: type, score: str) -> None:
    """A third of the captions belong to other images."""
    rng = np.random.default_rng(0)
    x = unit(rng, 300, 16)
    text = unit_rows(x + 0.2 * unit(rng, 300, 16))
    text[200:] = np.roll(text[200:], 1, axis=0)
    data = Candidates(n=300, x=x, text=text, scores=curate.score(x, score, text=text))
    assert (kind().select(data, 200, 0).index >= 200).mean() < 0.05


@pytest.mark.parametrize(("kind", "score"), [(NormSim, "normsim"), (Vas, "vas")])
def test_rows_like_the_target_come_first(kind: type, score: str) -> None:
    rng = np.random.default_rng(1)
    like = unit_rows((rng.normal(size=(150, 8)) * [5, 5, 1, 1, 1, 1, 1, 1]).astype(np.float32))
    x = np.concatenate([unit(rng, 200, 8), like[:50]])
    data = Candidates(n=250, x=x, scores=curate.score(x, score, target=like[50:]))
    assert (kind().select(data, 50, 0).index >= 200).mean() > 0.6  # of all rows they are .2


# --- clip-powered


def local(x: np.ndarray, k: int) -> np.ndarray:
    sim = x @ x.T
    np.fill_diagonal(sim, -np.inf)
    return 1 - np.sort(sim, axis=1)[:, -k:].mean(axis=1)


def z(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def test_best_sum_of_both_scores_among_all_subsets() -> None:
    rng = np.random.default_rng(2)
    x, align = unit(rng, 12), rng.random(12).astype(np.float32)
    total = 2 * z(align) + 0.5 * z(local(x, 3))
    best = max(combinations(range(12), 4), key=lambda s: total[list(s)].sum())
    chosen = ClipPowered(2.0, 0.5, 3).select(Candidates(n=12, x=x, scores={"align": align}), 4, 0)
    assert set(chosen.index.tolist()) == set(best)
    np.testing.assert_allclose(chosen.gain, total[chosen.index], atol=1e-4)


def test_the_mask_learned_by_gradients_is_the_one_taken_at_once() -> None:
    """The published optimisation: straight-through gradients of the mean score and of the share's distance."""
    rng = np.random.default_rng(3)
    x, align = unit(rng, 40), rng.random(40).astype(np.float32)
    total, mask, want = z(align) + z(local(x, 10)), np.zeros(40), 12
    for _ in range(4000):
        soft = 1 / (1 + np.exp(-mask))
        share = (soft > 0.5).mean() - want / 40
        mask -= 0.05 * (20 * np.sign(share) * (abs(share) > 0) - total) * soft * (1 - soft)
    learned = np.flatnonzero(mask > 0)
    chosen = ClipPowered().select(Candidates(n=40, x=x, scores={"align": align}), learned.size, 0)
    assert abs(learned.size - want) <= 2
    assert total[chosen.index].sum() >= total[learned].sum() - 1e-4
    assert len(set(chosen.index) & set(learned)) >= learned.size - 2


def test_online_form_is_the_same_where_the_sample_is_everything() -> None:
    rng = np.random.default_rng(4)
    data = Candidates(n=300, x=unit(rng, 300), scores={"align": rng.random(300).astype(np.float32)})
    ours, whole = ClipPoweredOnline().select(data, 60, 0), ClipPowered().select(data, 60, 0)
    assert ours.index.tolist() == whole.index.tolist()
    np.testing.assert_allclose(ours.gain, whole.gain, atol=1e-4)


def test_online_form_agrees_mostly_from_a_sample() -> None:
    rng = np.random.default_rng(5)
    spread = rng.uniform(0.1, 2, (5000, 1))  # some rows lie near others, some far
    x = unit_rows((unit(rng, 5, 16)[rng.integers(0, 5, 5000)] + spread * unit(rng, 5000, 16)).astype(np.float32))
    data = Candidates(n=5000, x=x, scores={"align": rng.random(5000).astype(np.float32)})
    ours, whole = ClipPoweredOnline(reference=500).select(data, 1000, 0), ClipPowered().select(data, 1000, 0)
    assert np.isin(ours.index, whole.index).mean() > 0.75  # by chance .2
    quarters = np.bincount(ours.index // 1250, minlength=4)
    assert np.abs(quarters - 250).max() < 5 * np.sqrt(250)


@pytest.mark.parametrize("kind", [ClipPowered, ClipPoweredOnline])
def test_without_an_alignment_it_is_asked_for(kind: type) -> None:
    with pytest.raises(SelectorError, match="needs the score 'align'"):
        kind().select(Candidates(n=5, x=unit(np.random.default_rng(6), 5)), 2, 0)


# --- vas-d


def plain_vas_d(x: np.ndarray, drop: float) -> list[int]:
    alive, ranked = list(range(len(x))), []
    while alive:
        score = np.einsum("ij,ij->i", x[alive] @ (x[alive].T @ x[alive]), x[alive]) / len(alive)
        order = [alive[i] for i in np.argsort(-score, kind="stable")]
        keep = min(int(len(alive) * (1 - drop)), len(alive) - 1)
        ranked = order[keep:] + ranked
        alive = sorted(order[:keep])
    return ranked


@pytest.mark.parametrize("drop", [0.05, 0.4])
def test_survivors_are_those_of_the_plain_loop(drop: float) -> None:
    x = unit(np.random.default_rng(7), 150)
    index = VasD(drop).select(Candidates(n=150, x=x), 60, 0).index
    assert index.tolist() == plain_vas_d(x.astype(np.float64), drop)[:60]


def test_rows_outside_the_common_directions_go_first() -> None:
    rng = np.random.default_rng(8)
    common = unit_rows((rng.normal(size=(150, 6)) * [5, 5, 1, 1, 1, 1]).astype(np.float32))
    x = np.concatenate([np.eye(6, dtype=np.float32)[rng.integers(2, 6, 30)], common])
    assert VasD().select(Candidates(n=180, x=x), 120, 0).index.min() >= 30


# --- datacomp-basic


GOOD = "a photo of a dog"


def sized(*rows: tuple[str | None, int, int]) -> Candidates:
    width, height = (np.array([row[i] for row in rows], dtype=np.float32) for i in (1, 2))
    return Candidates(n=len(rows), captions=[row[0] for row in rows], scores={"width": width, "height": height})


@pytest.mark.parametrize(
    ("caption", "width", "height", "failed"),
    [
        (GOOD, 200, 600, 0),
        (GOOD, 199, 300, 1),
        (GOOD, 200, 601, 1),
        (GOOD, 601, 200, 1),
        (GOOD, 100, 301, 2),
        ("two words", 300, 300, 1),
        ("a b c", 300, 300, 1),
        ("ab c d", 300, 300, 0),
        ("собака на траве летом", 300, 300, 1),
        ("un café très élégant", 300, 300, 0),
        ("1 2 3 4 5", 300, 300, 1),
        (None, 300, 300, 2),
        ("", 10, 100, 4),
    ],
)
def test_each_rule(caption: str | None, width: int, height: int, failed: int) -> None:
    chosen = DatacompBasic().select(sized((caption, width, height)), 1, 0)
    assert chosen.gain[0] == 1 - failed / 4


def test_rows_that_pass_are_drawn_equally_often_and_failures_fill_up() -> None:
    data = sized(*[(GOOD, 300, 300)] * 6, ("no", 300, 300), (GOOD, 10, 10), ("no", 10, 90))
    taken = np.zeros(9)
    for seed in range(1000):
        chosen = DatacompBasic().select(data, 3, seed)
        np.testing.assert_allclose(chosen.probability, 0.5)
        taken[chosen.index] += 1
    assert np.abs(taken[:6] / 1000 - 0.5).max() < 5 * np.sqrt(0.25 / 1000)
    assert taken[6:].sum() == 0
    filled = DatacompBasic().select(data, 7, 0)
    assert filled.index[6] in (6, 7)
    np.testing.assert_allclose(filled.probability, [1] * 6 + [0.5])
