"""What the two cleaning gates stand on: wrong pairs and wrong labels made on purpose, votes, trimming, thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_t

from curate.errors import UsageError
from curate.recipe import ScoreTable
from curate.scoring.calibrate import Observed, calibrate_classes
from curate.scoring.gaussian import LinearGaussian
from curate.scoring.knn_labels import vote_bits, vote_weights
from curate.scoring.labels import LabelModel, label_information
from curate.scoring.moments import ClassMoments, PairMoments
from curate.scoring.pairs import PAIR_COLUMNS, PairModel, pair_information, spread

SMALL = ScoreTable(image_dims=24, text_dims=20, target_dims=8, label_dims=12)


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """Chance that a value of `high` is above one of `low`."""
    return float(np.mean(low[:, None] < high[None, :]))


# --- wrong pairs


def refit_log2(x, y, given, asked, ridge: float, psi: float) -> float:
    """Density of one new target under the posterior of the rows x, y, from the rows themselves."""
    a, d = np.concatenate([np.ones((len(x), 1)), x], axis=1), y.shape[1]
    v = np.linalg.inv(a.T @ a + ridge * np.diag([0.0] + [1.0] * x.shape[1]))
    w = v @ a.T @ y
    scatter = y.T @ y - w.T @ np.linalg.inv(v) @ w + psi * np.eye(d)
    row = np.concatenate([[1.0], given])
    df = len(x) + 3
    return float(multivariate_t(row @ w, scatter * (1 + row @ v @ row) / df, df=df).logpdf(asked) / np.log(2))


@pytest.mark.parametrize("seen", ["both", "one", "none"])
@pytest.mark.parametrize(("p", "ridge"), [(3, 1.0), (3, 0.0), (0, 0.0)])
def test_crossed_pairs_equal_refits_without_both_rows(p: int, ridge: float, seen: str) -> None:
    rng = np.random.default_rng(0)
    n, m = 25, {"both": 25, "one": 22, "none": 20}[seen]  # the first m are in the sums
    x, y = rng.normal(size=(n, p)), rng.normal(size=(n, 2)) + 1.0
    row, asked = np.array([20, 21, 20, 24]), np.array([23, 24, 22, 20])
    a = np.concatenate([np.ones((m, 1)), x[:m]], axis=1)
    family = LinearGaussian(m, a.T @ a, a.T @ y[:m], y[:m].T @ y[:m], ridge)
    psi = 1e-6 * max(float(np.trace(y[:m].T @ y[:m])), m) / 2
    expected = []
    for i, j in zip(row, asked, strict=True):
        rest = [k for k in range(m) if k not in (i, j)]
        expected.append(refit_log2(x[rest], y[rest], x[i], y[j], ridge, psi))
    np.testing.assert_allclose(family.crossed(x, y, row, asked, np.arange(n) < m), expected, rtol=0, atol=1e-8)


def pairs(n: int, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two views, 40 and 30 dimensions wide, of one hidden vector of 10."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 10))
    x = hidden @ rng.normal(size=(10, 40)) + noise * rng.normal(size=(n, 40)) + 1.0
    y = hidden @ rng.normal(size=(10, 30)) + noise * rng.normal(size=(n, 30)) - 2.0
    return x.astype(np.float32), y.astype(np.float32)


def pair_model(x: np.ndarray, y: np.ndarray) -> PairModel:
    moments = PairMoments.zeros(x.shape[1], y.shape[1])
    moments.add(x, y)
    return PairModel(moments, SMALL)


def test_mismatched_rows_outside_the_sums_score_as_any_pair() -> None:
    x, y = pairs(300)
    model, other = pair_model(x[:200], y[:200]), np.roll(np.arange(100), 1)
    left, right = model.project(x[200:], y[200:])
    unseen = np.zeros(100, dtype=np.bool_)
    plain = model.score(left, right[other], unseen)["pvi"]
    np.testing.assert_allclose(model.mismatched(left, right, unseen, other), plain, rtol=1e-4, atol=1e-3)


def test_mismatched_rows_of_the_sums_score_as_if_neither_were_in_them() -> None:
    x, y = pairs(60)
    model = pair_model(x, y)
    left, right = model.project(x, y)
    other = np.roll(np.arange(60), 7)
    ours = model.mismatched(left, right, np.ones(60, dtype=np.bool_), other)
    for i in (0, 3, 50):
        without, out = pair_model(x, y), [i, other[i]]
        one = np.ones((2, 1))
        given, target = np.concatenate([one, left[out]], axis=1), np.concatenate([one, right[out]], axis=1)
        sums = without._sums
        sums.n, sums.x, sums.y = 58.0, sums.x - given.T @ given, sums.y - target.T @ target
        sums.xy = sums.xy - given.T @ target
        pair = left[i : i + 1], right[other[i : i + 1]]
        expected = without.score(*pair, np.zeros(1, dtype=np.bool_))["pvi"]
        np.testing.assert_allclose(ours[i : i + 1], expected, rtol=1e-3, atol=1e-3)


# --- pair scores on arrays


def test_untrimmed_pair_scores_are_those_of_the_model() -> None:
    x, y = pairs(300)
    model = pair_model(x, y)
    left, right = model.project(x, y)
    model.choose_ridges(left, right)
    expected = model.score(left, right, np.ones(300, dtype=np.bool_))
    columns = pair_information(x, y, SMALL, trims=0)
    assert set(columns) == {*PAIR_COLUMNS, "pvi"}
    for name, values in expected.items():
        np.testing.assert_allclose(columns[name], values, rtol=1e-4, atol=1e-3)


def test_trimming_sharpens_a_collection_with_many_wrong_pairs() -> None:
    x, y = pairs(1500, noise=2.0)
    wrong = np.arange(1500) < 600
    y[wrong] = np.roll(y[wrong], 1, axis=0)
    once, never = (pair_information(x, y, SMALL, trims=t)["pvi"] for t in (1, 0))
    assert auc(once[wrong], once[~wrong]) > auc(never[wrong], never[~wrong]) + 0.002


def test_views_that_do_not_inform_each_other_are_not_trimmed() -> None:
    """Rows chosen by their own chance fit would vouch for each other."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 40)).astype(np.float32), rng.normal(size=(400, 30)).astype(np.float32)
    np.testing.assert_array_equal(
        pair_information(x, y, SMALL, trims=3)["pvi"], pair_information(x, y, SMALL, trims=0)["pvi"]
    )


def test_uncounted_pairs_are_scored_and_teach_nothing() -> None:
    x, y = pairs(300)
    counted = np.arange(300) < 200
    columns = pair_information(x, y, SMALL, counted, trims=0)
    x[~counted] = np.roll(x[~counted], 1, axis=0)
    changed = pair_information(x, y, SMALL, counted, trims=0)
    assert np.isfinite(columns["pvi"]).all()
    np.testing.assert_array_equal(columns["pvi"][counted], changed["pvi"][counted])
    assert changed["pvi"][~counted].mean() < 0 < columns["pvi"][~counted].mean()


def test_pair_information_of_nothing_and_of_lengths_that_differ() -> None:
    x, y = pairs(12)
    assert pair_information(x[:0], y[:0], SMALL)["pvi"].shape == (0,)
    assert np.isnan(pair_information(x, y, SMALL, np.zeros(12, dtype=np.bool_))["pvi"]).all()
    with pytest.raises(UsageError, match="the same"):
        pair_information(x, y[:5], SMALL)


def test_spread_keeps_the_ends_and_the_order() -> None:
    assert spread(np.array([3, 5, 8, 9, 12]), 3).tolist() == [3, 8, 12]
    assert spread(np.array([3, 5]), 10).tolist() == [3, 5]
    assert spread(np.zeros(0, dtype=np.int64), 10).size == 0


# --- votes


def classes(n: int, k: int = 4, p: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    means = 3 * rng.normal(size=(k, p)) / np.sqrt(p)
    return (means[label] + rng.normal(size=(n, p)) * np.linspace(0.5, 1.5, p)).astype(np.float32), label


def label_model(x: np.ndarray, label: np.ndarray, table: ScoreTable = SMALL) -> LabelModel:
    moments = ClassMoments.zeros(x.shape[1])
    moments.add(x, label, int(label.max()) + 1)
    return LabelModel(moments, table)


def test_surprise_joins_half_of_lda_with_the_votes_of_the_nearest_other_rows() -> None:
    x, label = classes(300)
    seen, rows = np.ones(300, dtype=np.bool_), np.arange(300)
    model = label_model(x, label)
    z = model.project(x)
    alone = model.score(z, label, seen)
    model.refer([(x[:120], label[:120]), (x[120:], label[120:])])
    joined = model.score(z, label, seen, rows)
    unit = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    sim = unit @ unit.T
    np.fill_diagonal(sim, -np.inf)
    near = np.argsort(-sim, axis=1, kind="stable")[:, :100]
    weight = vote_weights(np.take_along_axis(sim, near, axis=1), 15.0)
    vote = vote_bits(near, label, 4, kappa=0.5, weight=weight)["s1_vote"]
    np.testing.assert_allclose(joined["s1_label"], alone["s1_label"] / 2 + vote, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(joined["s0_label"], alone["s0_label"])
    np.testing.assert_array_equal(joined["pvi_label"], alone["pvi_label"])


def test_a_row_among_many_equal_ones_still_leaves_only_itself_out() -> None:
    """With 150 equal rows, the nearest 101 need not hold the row itself."""
    x, label = classes(400)
    x[:150], label[:150] = x[0], 0
    label[149] = 1
    model = label_model(x, label)
    model.refer([(x, label)])
    scores = model.score(model.project(x), label, np.ones(400, dtype=np.bool_), np.arange(400))["s1_label"]
    assert scores[149] > scores[:149].max() + 5  # its 100 votes are all for class 0
    np.testing.assert_allclose(scores[:149], scores[0], atol=0.05)


def test_a_single_voter_leaves_the_class_share_where_it_is_the_row_itself() -> None:
    x, label = classes(60, k=2)
    model = label_model(x, label)
    alone = model.score(model.project(x), label, np.ones(60, dtype=np.bool_))
    model.refer([(x[:1], label[:1])])
    joined = model.score(model.project(x[:1]), label[:1], np.ones(1, dtype=np.bool_), np.zeros(1, dtype=np.int64))
    expected = alone["s1_label"][0] / 2 + alone["s0_label"][0]
    np.testing.assert_allclose(joined["s1_label"], [expected], rtol=1e-5)


def test_wrong_labels_are_found_better_with_votes() -> None:
    """Each class has two far places: its mean says little, its neighbours much."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 1600)
    places = 2.0 * rng.normal(size=(4, 2, 12))
    x = (places[label, rng.integers(0, 2, 1600)] + rng.normal(size=(1600, 12))).astype(np.float32)
    flipped = rng.random(1600) < 0.15
    label[flipped] = (label[flipped] + 1) % 4
    scores = label_information(x, label, SMALL)
    assert auc(scores["s1_label"][~flipped], scores["s1_label"][flipped]) > 0.97
    assert auc(scores["s1_label"][~flipped], scores["s1_label"][flipped]) > 0.01 + auc(
        -scores["pvi_label"][~flipped], -scores["pvi_label"][flipped]
    )


def test_label_information_leaves_unlabelled_unknown_and_uncounted_rows_alone() -> None:
    x, label = classes(200)
    label[5], label[6] = -1, 9
    counted = np.ones(200, dtype=np.bool_)
    counted[6:16] = False
    scores = label_information(x, label, SMALL, counted)
    assert np.flatnonzero(np.isnan(scores["s1_label"])).tolist() == [5, 6]
    x[10] += 3.0  # a row that is not counted changes itself only
    again = label_information(x, label, SMALL, counted)
    np.testing.assert_array_equal(np.delete(again["s1_label"], 10), np.delete(scores["s1_label"], 10))
    assert again["s1_label"][10] != scores["s1_label"][10]
    empty = label_information(x, np.full(200, -1), SMALL)
    assert np.isnan(empty["s1_label"]).all()
    with pytest.raises(UsageError, match="the same"):
        label_information(x, label[:10], SMALL)


# --- labels that are wrong on purpose


@pytest.mark.parametrize("votes", [False, True])
def test_foreign_labels_equal_refits_without_the_row(votes: bool) -> None:
    """Without shrinkage the classes do not depend on the axes, so a model of all other rows is the exact answer."""
    x, label = classes(60, k=3, p=5)
    table, rows = replace(SMALL, label_dims=5, shrinkage=0.0), np.arange(60)
    model = label_model(x, label, table)
    model.refer([(x, label)])
    if not votes:
        model = label_model(x, label, table)
    z = model.project(x)
    foreign = model.foreign(z, label, np.ones(60, dtype=np.bool_), rows)
    unit = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    for claimed in range(3):
        at = np.flatnonzero(label != claimed)
        expected = []
        for i in at:
            rest = rows != i
            count = np.bincount(label[rest], minlength=3)
            means = np.array([x[rest & (label == c)].astype(np.float64).mean(axis=0) for c in range(3)])
            off = x[rest] - means[label[rest]]
            precision = (59 - 3) * np.linalg.inv(off.T @ off)
            gap = x[i] - means
            logit = np.log(count + 0.5) - np.einsum("kp,pq,kq->k", gap, precision, gap) / 2
            bits = (np.logaddexp.reduce(logit) - logit[claimed]) / np.log(2)
            if votes:
                sim = unit[rest] @ unit[i]
                weight = np.exp(15.0 * (sim - sim.max()))
                share = (count[claimed] + 0.5) / (59 + 1.5)
                ours = weight[label[rest] == claimed].sum() + 0.5 * share
                bits = bits / 2 - np.log2(ours / (weight.sum() + 0.5))
            expected.append(bits)
        np.testing.assert_allclose(foreign.s1(claimed), expected, rtol=1e-4, atol=1e-4)


def test_a_lone_row_of_its_class_gets_foreign_labels_too() -> None:
    x, label = classes(100)
    label[7] = 4
    model = label_model(x, label)
    model.refer([(x, label)])
    foreign = model.foreign(model.project(x), label, np.ones(100, dtype=np.bool_), np.arange(100))
    assert all(np.isfinite(foreign.s1(k)).all() for k in range(5))


# --- thresholds of classes


def mixed(n: int, bad: float, gap: float, rng: np.random.Generator) -> tuple[Observed, np.ndarray]:
    """A class of n scores of which the share `bad` is wrong, and which."""
    wrong = rng.random(n) < bad
    return Observed(rng.normal(size=n) + np.where(wrong, 0.0, gap), rng.normal(size=4000), 0.0), wrong


def losses(made: dict, found: dict) -> dict[int, float]:
    return {k: float((o.scores[~wrong] < found[k].value).mean()) for k, (o, wrong) in made.items()}


@pytest.mark.parametrize("max_loss", [0.02, 0.05, 0.10])
@pytest.mark.parametrize("seed", range(3))
def test_classes_together_lose_what_they_may_and_small_ones_not_twice_as_much(max_loss: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = {k: mixed(n, bad, 3.0, rng) for k, (n, bad) in enumerate([(6000, 0.01), (1100, 0.15), (400, 0.4)])}
    found = calibrate_classes({k: o for k, (o, _) in made.items()}, max_loss, 0.0)
    lost = losses(made, found)
    good = {k: int((~wrong).sum()) for k, (_, wrong) in made.items()}
    assert sum(lost[k] * good[k] for k in made) / sum(good.values()) == pytest.approx(max_loss, abs=0.02)
    assert max(lost[1], lost[2]) < 2.3 * lost[0] + 0.01
    assert all(found[k].lost == pytest.approx(lost[k], abs=0.05) for k in made)


def test_clean_classes_lose_nearly_nothing() -> None:
    rng = np.random.default_rng(0)
    made = {k: mixed(n, 0.0, 4.0, rng) for k, n in enumerate([5000, 800, 60])}
    found = calibrate_classes({k: o for k, (o, _) in made.items()}, 0.05, 0.5)
    assert all(lost < 0.02 for lost in losses(made, found).values())


def test_of_all_refused_labels_the_asked_share_is_wrong() -> None:
    rng = np.random.default_rng(1)
    made = {k: mixed(n, 0.05, 3.0, rng) for k, n in enumerate([8000, 3000])}
    loose, strict = (calibrate_classes({k: o for k, (o, _) in made.items()}, 0.3, p) for p in (0.0, 0.8))
    refused = np.concatenate([o.scores < strict[k].value for k, (o, _) in made.items()])
    assert np.concatenate([wrong for _, wrong in made.values()])[refused].mean() > 0.75
    assert all(strict[k].value < loose[k].value for k in made)


def test_a_class_of_few_samples_borrows_the_losses_of_the_others() -> None:
    """Alone, its loss is known to a tenth at best; with the others' its error is a third of that."""
    errors = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        made = {0: mixed(6000, 0.05, 3.0, rng), 1: mixed(2000, 0.2, 3.0, rng), 2: mixed(60, 0.6, 3.0, rng)}
        both = calibrate_classes({k: o for k, (o, _) in made.items()}, 0.10, 0.0)
        alone = calibrate_classes({2: made[2][0]}, both[2].lost, 0.0)
        truth = losses(made, both)[2], losses({2: made[2]}, alone)[2]
        errors.append([truth[0] - both[2].lost, truth[1] - both[2].lost])
    with_others, by_itself = np.sqrt(np.mean(np.square(errors), axis=0))
    assert with_others < 0.7 * by_itself


def test_no_class_one_class_and_equal_scores_are_calibrated() -> None:
    assert calibrate_classes({}, 0.05, 0.5) == {}
    equal = calibrate_classes({3: Observed(np.zeros(30), np.zeros(30), 0.0)}, 0.05, 0.5)
    assert equal[3].value == 0.0  # nothing lies below it
    rng = np.random.default_rng(0)
    observed, wrong = mixed(5000, 0.1, 3.0, rng)
    found = calibrate_classes({0: observed}, 0.05, 0.0)[0]
    assert (observed.scores[~wrong] < found.value).mean() == pytest.approx(0.05, abs=0.02)
    assert {type(value) for value in found.as_dict().values()} == {float}


def test_classes_without_any_spread_are_told_apart(rng: np.random.Generator) -> None:
    """Equal rows leave a scatter of rounding noise, which must not be inverted as it is."""
    label = np.repeat(np.arange(3), 50)
    image = rng.normal(size=(3, 24)).astype(np.float32)[label] / 3
    wrong = label.copy()
    wrong[0] = 1
    s1 = label_information(image, wrong, ScoreTable())["s1_label"]
    assert np.isfinite(s1).all()
    assert s1[0] == s1.max() > 1
