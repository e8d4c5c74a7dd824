"""Scores from additive statistics, against refits and on data whose truth is known."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_t

from curate.recipe import ScoreTable
from curate.scoring.calibrate import calibrate
from curate.scoring.gaussian import LinearGaussian
from curate.scoring.labels import LABEL_COLUMNS, LabelModel
from curate.scoring.moments import ClassMoments, PairMoments
from curate.scoring.pairs import PAIR_COLUMNS, RIDGES, Basis, PairModel

SMALL = ScoreTable(image_dims=24, text_dims=20, target_dims=8, label_dims=12)


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """Chance that a value of `high` is above one of `low`."""
    return float(np.mean(low[:, None] < high[None, :]))


def assert_sums_equal(ours, theirs) -> None:
    """Up to rounding, relative to the largest entry of each sum."""
    for name, value in theirs.arrays().items():
        scale = max(float(np.abs(value).max(initial=0)), 1.0)
        np.testing.assert_allclose(ours.arrays()[name], value, atol=1e-9 * scale, rtol=0, err_msg=name)


# --- sums

SIZES = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 999))


def views(rng: np.random.Generator, n: int, p: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(3, 5, size=(n, p)).astype(np.float32), rng.normal(size=(n, d)).astype(np.float32)


def pair_sums(x: np.ndarray, y: np.ndarray) -> PairMoments:
    moments = PairMoments.zeros(x.shape[1], y.shape[1])
    moments.add(x, y)
    return moments


@given(SIZES)
def test_pair_sums_of_two_halves_are_the_sums_of_the_whole(sizes: tuple[int, ...]) -> None:
    n, m, p, d, seed = sizes
    x, y = views(np.random.default_rng(seed), n + m, p, d)
    merged = pair_sums(x[:n], y[:n])
    merged.merge(pair_sums(x[n:], y[n:]))
    assert_sums_equal(merged, pair_sums(x, y))
    assert merged.n == n + m


@given(SIZES)
def test_pair_sums_forget_rows_that_are_taken_out(sizes: tuple[int, ...]) -> None:
    n, m, p, d, seed = sizes
    x, y = views(np.random.default_rng(seed), n + m, p, d)
    moments = pair_sums(x, y)
    moments.add(x[n:], y[n:], sign=-1.0)
    assert_sums_equal(moments, pair_sums(x[:n], y[:n]))


def test_pair_sums_by_hand() -> None:
    moments = pair_sums(np.float32([[1, 2], [3, 4]]), np.float32([[5], [6]]))
    assert (moments.n, moments.x.tolist(), moments.y.tolist()) == (2.0, [4, 6], [11])
    assert (moments.xx.tolist(), moments.xy.tolist()) == ([[10, 14], [14, 20]], [[23], [34]])
    assert moments.yy.tolist() == [[61]]


def class_sums(x: np.ndarray, label: np.ndarray, classes: int) -> ClassMoments:
    moments = ClassMoments.zeros(x.shape[1])
    moments.add(x, label, classes)
    return moments


@given(SIZES)
def test_class_sums_merge_and_forget(sizes: tuple[int, ...]) -> None:
    n, m, p, classes, seed = sizes
    rng = np.random.default_rng(seed)
    x, _ = views(rng, n + m, p, 1)
    label = rng.integers(0, classes, n + m)
    merged = class_sums(x[:n], label[:n], 1 + int(label[:n].max(initial=0)))  # the second half may know more classes
    merged.merge(class_sums(x[n:], label[n:], classes))
    whole = class_sums(x, label, classes)
    assert_sums_equal(merged, whole)
    whole.add(x[n:], label[n:], classes, sign=-1.0)
    assert_sums_equal(whole, class_sums(x[:n], label[:n], classes))


def test_class_sums_by_hand() -> None:
    moments = class_sums(np.float32([[1, 2], [3, 4], [5, 6]]), np.array([1, 0, 1]), 3)
    assert (moments.count.tolist(), moments.x.tolist()) == ([1, 2, 0], [[3, 4], [6, 8], [0, 0]])
    assert moments.xx.tolist() == [[35, 44], [44, 56]]


def test_saved_sums_come_back_and_are_their_own(rng: np.random.Generator) -> None:
    x, y = views(rng, 9, 3, 2)
    for moments in (pair_sums(x, y), class_sums(x, rng.integers(0, 2, 9), 2)):
        saved = moments.arrays()
        before = {name: value.copy() for name, value in saved.items()}
        back = type(moments).from_arrays(saved)
        assert_sums_equal(back, moments)
        back.xx += 1
        np.testing.assert_array_equal(saved["xx"], before["xx"])


# --- the linear-Gaussian family


def design(x: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(x), 1)), x], axis=1)


def refit_log2(x, y, new_x, new_y, ridge: float, psi: float) -> float:
    """Posterior of Bayesian linear regression from the rows themselves, and its density at one new row."""
    a, d = design(x), y.shape[1]
    v = np.linalg.inv(a.T @ a + ridge * np.diag([0.0] + [1.0] * x.shape[1]))
    w = v @ a.T @ y
    scatter = y.T @ y - w.T @ np.linalg.inv(v) @ w + psi * np.eye(d)
    row = design(new_x[None])[0]
    df = d + 2 + len(x) - d + 1
    shape = scatter * (1 + row @ v @ row) / df
    return float(multivariate_t(row @ w, shape, df=df).logpdf(new_y) / np.log(2))


def family(x: np.ndarray, y: np.ndarray, ridge: float) -> LinearGaussian:
    a = design(x)
    return LinearGaussian(len(x), a.T @ a, a.T @ y, y.T @ y, ridge)


@pytest.mark.parametrize(("p", "ridge"), [(3, 1.0), (3, 0.1), (3, 0.0), (0, 0.0)])
def test_leave_one_out_equals_refits_without_the_row(p: int, ridge: float, rng: np.random.Generator) -> None:
    x = rng.normal(size=(25, p))
    y = rng.normal(size=(25, 2)) + 1.0
    psi = 1e-6 * np.trace(y.T @ y) / 2
    rest = [np.delete(np.arange(25), i) for i in range(25)]
    refits = [refit_log2(x[r], y[r], x[i], y[i], ridge, psi) for i, r in enumerate(rest)]
    np.testing.assert_allclose(family(x, y, ridge).leave_one_out(x, y), refits, rtol=0, atol=1e-8)


def test_predictive_equals_the_posterior_of_the_rows(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(25, 3)), rng.normal(size=(25, 2))
    psi = 1e-6 * np.trace(y[:20].T @ y[:20]) / 2
    expected = [refit_log2(x[:20], y[:20], x[i], y[i], 1.0, psi) for i in range(20, 25)]
    np.testing.assert_allclose(family(x[:20], y[:20], 1.0).predictive(x[20:], y[20:]), expected, rtol=0, atol=1e-8)


def test_predictive_density_of_one_target_integrates_to_one(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(30, 1))
    grid = np.linspace(-60, 60, 20_001)[:, None]
    density = np.exp2(family(x, y, 1.0).predictive(np.tile(x[:1], (len(grid), 1)), grid))
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1.0, abs=1e-4)


# --- images and captions


def pairs(n: int, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two views, 40 and 30 dimensions wide, of one hidden vector of 10."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 10))
    x = hidden @ rng.normal(size=(10, 40)) + noise * rng.normal(size=(n, 40)) + 1.0
    y = hidden @ rng.normal(size=(10, 30)) + noise * rng.normal(size=(n, 30)) - 2.0
    return x.astype(np.float32), y.astype(np.float32)


def scored(x: np.ndarray, y: np.ndarray, table: ScoreTable = SMALL) -> dict[str, np.ndarray]:
    model = PairModel(pair_sums(x, y), table)
    left, right = model.project(x, y)
    model.choose_ridges(left, right)
    return model.score(left, right, np.ones(len(x), dtype=bool))


def test_columns_are_named_and_pvi_is_surprise_less_conditional_surprise() -> None:
    columns = scored(*pairs(200))
    assert set(columns) == {*PAIR_COLUMNS, "pvi"}
    for view in ("text", "image"):
        np.testing.assert_allclose(
            columns[f"pvi_{view}"], columns[f"s0_{view}"] - columns[f"s1_{view}"], rtol=1e-4, atol=1e-4
        )
    np.testing.assert_allclose(columns["pvi"], (columns["pvi_text"] + columns["pvi_image"]) / 2, rtol=1e-5, atol=1e-5)
    assert {value.dtype for value in columns.values()} == {np.dtype(np.float32)}


def test_shuffled_captions_carry_less_information() -> None:
    x, y = pairs(1500)
    wrong = np.arange(1500) < 300
    y[wrong] = np.roll(y[wrong], 1, axis=0)
    pvi = scored(x, y)["pvi"]
    assert auc(pvi[wrong], pvi[~wrong]) > 0.99
    assert (pvi[wrong] < 0).mean() > 0.9
    assert (pvi[~wrong] > 0).mean() > 0.9


def test_independent_views_carry_no_information(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(400, 40)).astype(np.float32), rng.normal(size=(400, 30)).astype(np.float32)
    columns = scored(x, y)
    assert -1.0 < columns["pvi"].mean() < 0.1
    assert all(np.isfinite(value).all() for value in columns.values())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("caption", ["equal", "zero", "two"])
def test_views_of_lower_rank_are_scored(caption: str, seed: int) -> None:
    """Every caption the same, every caption empty, only two captions; sums of equal rows keep rounding noise."""
    rng = np.random.default_rng(seed)
    x, _ = pairs(300)
    share = {"equal": np.ones(300), "zero": np.zeros(300), "two": rng.choice([-1.0, 1.0], 300)}[caption]
    columns = scored(x, np.outer(share, rng.normal(size=30)).astype(np.float32))
    assert all(np.isfinite(value).all() for value in columns.values())
    assert columns["pvi"].mean() < 0.5


def test_model_of_few_rows_is_finite() -> None:
    assert all(np.isfinite(value).all() for value in scored(*pairs(8)).values())


def test_score_then_add_equals_a_model_of_all_rows() -> None:
    x, y = pairs(300)
    model = PairModel(pair_sums(x[:200], y[:200]), SMALL)
    left, right = model.project(x, y)
    one = np.ones(1, dtype=bool)
    for i in range(200, 203):
        row = left[i : i + 1], right[i : i + 1]
        before = model.score(*row, ~one)
        model.add(*row)
        model.renew()
        # The predictive of a row that is new is its leave-one-out score once it is in the sums, up to the tiny prior.
        np.testing.assert_allclose(before["pvi"], model.score(*row, one)["pvi"], rtol=1e-3, atol=1e-3)


def test_rows_added_one_by_one_or_together_give_the_same_scores() -> None:
    x, y = pairs(260)
    one, all_ = (PairModel(pair_sums(x[:200], y[:200]), SMALL) for _ in range(2))
    left, right = one.project(x, y)
    for i in range(200, 260):
        one.add(left[i : i + 1], right[i : i + 1])
    all_.add(left[200:], right[200:])
    for model in (one, all_):
        model.renew()
    seen = np.ones(260, dtype=bool)
    first, second = (model.score(left, right, seen)["pvi"] for model in (one, all_))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_a_fit_serves_until_the_rows_have_grown_by_a_hundredth() -> None:
    x, y = pairs(310)
    scored_often, added = (PairModel(pair_sums(x[:200], y[:200]), SMALL) for _ in range(2))
    left, right = added.project(x, y)
    asked, unseen = (left[300:], right[300:]), np.zeros(10, dtype=bool)
    values = []
    for i in range(200, 206):
        values.append(scored_often.score(*asked, unseen)["pvi"])
        for model in (scored_often, added):
            model.add(left[i : i + 1], right[i : i + 1])
    changed = [bool((a != b).any()) for a, b in pairwise(values)]
    assert changed == [False, True, False, False, True]  # at 202 and at 205 rows
    # When it was asked makes no difference.
    np.testing.assert_array_equal(scored_often.score(*asked, unseen)["pvi"], added.score(*asked, unseen)["pvi"])


def test_scores_do_not_depend_on_the_order_of_rows(rng: np.random.Generator) -> None:
    x, y = pairs(300)
    order = rng.permutation(300)
    np.testing.assert_allclose(scored(x[order], y[order])["pvi"], scored(x, y)["pvi"][order], rtol=1e-4, atol=1e-4)


def test_scores_do_not_depend_on_the_scale_of_a_view() -> None:
    x, y = pairs(300)
    np.testing.assert_allclose(scored(x * 64, y)["pvi"], scored(x, y)["pvi"], rtol=1e-3, atol=1e-3)


def test_seen_and_unseen_rows_may_be_mixed() -> None:
    x, y = pairs(250)
    model = PairModel(pair_sums(x[:200], y[:200]), SMALL)
    left, right = model.project(x, y)
    seen = np.arange(250) < 200
    both = model.score(left, right, seen)["pvi"]
    for rows in (seen, ~seen):
        alone = model.score(left[rows], right[rows], seen[rows])["pvi"]
        np.testing.assert_allclose(both[rows], alone, rtol=1e-5, atol=1e-5)


def test_ridge_grows_with_the_noise() -> None:
    def ridges(noise: float) -> tuple[float, float]:
        x, y = pairs(150, noise)
        model = PairModel(pair_sums(x, y), SMALL)
        model.choose_ridges(*model.project(x, y))
        return model.ridges

    clear, noisy = ridges(0.05), ridges(20.0)
    assert set(clear + noisy) <= set(RIDGES)
    assert all(a < b for a, b in zip(clear, noisy, strict=True))


def test_ridge_is_the_best_of_the_grid_by_leave_one_out() -> None:
    x, y = pairs(150, 2.0)
    model = PairModel(pair_sums(x, y), SMALL)
    left, right = model.project(x, y)
    model.choose_ridges(left, right)
    seen = np.ones(150, dtype=bool)

    def surprise(ridge: float) -> tuple[float, float]:
        columns = PairModel(pair_sums(x, y), SMALL, (ridge, ridge)).score(left, right, seen)
        return float(columns["s1_text"].mean()), float(columns["s1_image"].mean())

    table = {ridge: surprise(ridge) for ridge in RIDGES}
    assert model.ridges == (min(RIDGES, key=lambda r: table[r][0]), min(RIDGES, key=lambda r: table[r][1]))


def test_basis_is_orthogonal_and_centred_with_unit_mean_square() -> None:
    x, _ = pairs(500)
    wide = x.astype(np.float64)
    projected = Basis.fit(500, wide.sum(axis=0), wide.T @ wide, 6).project(x)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-9)
    assert (projected**2).sum(axis=1).mean() == pytest.approx(1.0)
    covariance = projected.T @ projected / 500
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert (np.diff(np.diag(covariance)) <= 0).all()


# --- labels


def classes(n: int, k: int = 4, p: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    means = 3 * rng.normal(size=(k, p)) / np.sqrt(p)
    return (means[label] + rng.normal(size=(n, p)) * np.linspace(0.5, 1.5, p)).astype(np.float32), label


def label_scores(x: np.ndarray, label: np.ndarray, table: ScoreTable = SMALL) -> dict[str, np.ndarray]:
    model = LabelModel(class_sums(x, label, int(label.max()) + 1), table)
    return model.score(model.project(x), label, np.ones(len(x), dtype=bool))


def refit_s1(z: np.ndarray, label: np.ndarray, i: int, shrink: float, ridge: float) -> float:
    """Fit classes with a shared covariance to all rows but i; `ridge` is the fixed part of the shrunk scatter."""
    rest, own = np.delete(z, i, axis=0), np.delete(label, i)
    k = int(label.max()) + 1
    means = np.array([rest[own == c].mean(axis=0) for c in range(k)])
    off = rest - means[own]
    scatter = (1 - shrink) * off.T @ off + ridge * np.eye(z.shape[1])
    precision = (len(rest) - k) * np.linalg.inv(scatter)
    logit = [np.log((own == c).sum() + 0.5) - (z[i] - means[c]) @ precision @ (z[i] - means[c]) / 2 for c in range(k)]
    return float((np.logaddexp.reduce(logit) - logit[label[i]]) / np.log(2))


@pytest.mark.parametrize("shrink", [0.0, 0.1, 1.0])
def test_label_surprise_equals_refits_without_the_row(shrink: float) -> None:
    """The diagonal that shrinkage mixes in keeps the size that all rows together gave it."""
    x, label = classes(60, k=3, p=5)
    z = x.astype(np.float64)
    means = np.array([z[label == c].mean(axis=0) for c in range(3)])
    ridge = shrink * ((z - means[label]) ** 2).sum() / 5
    expected = [refit_s1(z, label, i, shrink, ridge) for i in range(60)]
    ours = label_scores(x, label, replace(SMALL, label_dims=5, shrinkage=shrink))
    np.testing.assert_allclose(ours["s1_label"], expected, rtol=1e-5, atol=1e-6)  # the columns are float32


def test_label_columns_are_named_and_consistent() -> None:
    columns = label_scores(*classes(100))
    assert tuple(columns) == LABEL_COLUMNS
    np.testing.assert_allclose(columns["pvi_label"], columns["s0_label"] - columns["s1_label"], atol=1e-5)


def test_flipped_labels_are_surprising(rng: np.random.Generator) -> None:
    x, label = classes(1000)
    flipped = rng.random(1000) < 0.1
    label[flipped] = (label[flipped] + 1) % 4
    columns = label_scores(x, label)
    assert auc(columns["s1_label"][~flipped], columns["s1_label"][flipped]) > 0.97


def test_only_row_of_its_class_is_as_surprising_with_its_image_as_without() -> None:
    x, label = classes(100)
    label[7] = 4
    columns = label_scores(x, label)
    assert columns["s1_label"][7] == columns["s0_label"][7]
    assert columns["pvi_label"][7] == 0.0


def test_surprise_without_the_image_is_the_share_of_the_class() -> None:
    x, label = classes(40)
    label[:] = np.arange(40) < 10
    expected = -np.log2(np.where(label == 1, 9.5, 29.5) / 40)
    np.testing.assert_allclose(label_scores(x, label)["s0_label"], expected, rtol=1e-6)


def test_label_scores_do_not_depend_on_the_order_of_rows(rng: np.random.Generator) -> None:
    x, label = classes(200)
    order = rng.permutation(200)
    ours = label_scores(x[order], label[order])["s1_label"]
    np.testing.assert_allclose(ours, label_scores(x, label)["s1_label"][order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_label_model_of_few_or_equal_rows_is_finite(n: int) -> None:
    label = np.arange(n) % 3
    for x in (classes(n)[0], np.ones((n, 6), dtype=np.float32)):
        assert all(np.isfinite(value).all() for value in label_scores(x, label).values())


# --- gates


def mixture(n: int, bad: float, gap: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, which of them are bad, and scores of samples put together wrongly on purpose."""
    rng = np.random.default_rng(seed)
    is_bad = rng.random(n) < bad
    scores = rng.normal(size=n) + np.where(is_bad, 0.0, gap)
    return scores, is_bad, rng.normal(size=n)


@pytest.mark.parametrize("bad", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("gap", [2.5, 4.0])
@pytest.mark.parametrize("max_loss", [0.01, 0.05, 0.1])
def test_gate_loses_what_it_may_and_knows_the_bad_share(bad: float, gap: float, max_loss: float) -> None:
    scores, is_bad, wrong = mixture(20_000, bad, gap)
    gate = calibrate(scores, wrong, max_loss, 0.0)
    refused = scores < gate.value
    assert refused[~is_bad].mean() == pytest.approx(max_loss, abs=0.02)
    assert refused[~is_bad].mean() == pytest.approx(gate.lost, abs=0.02)
    assert refused[is_bad].mean() == pytest.approx(gate.caught, abs=0.02)
    assert gate.bad == pytest.approx(bad, abs=0.03)


def test_clean_scores_lose_nearly_nothing() -> None:
    scores, _, wrong = mixture(5000, 0.0, 4.0)
    gate = calibrate(scores, wrong, 0.05, 0.5)
    assert (scores < gate.value).mean() < 0.01
    assert gate.bad < 0.03


def test_scores_that_tell_nothing_refuse_little_or_mostly_bad() -> None:
    scores, _, wrong = mixture(5000, 0.0, 0.0)
    gate = calibrate(scores, wrong, 0.05, 0.5)
    assert gate.lost <= 0.05
    assert gate.bad <= 0.95


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.95])
def test_refusals_are_as_often_bad_as_asked(precision: float) -> None:
    scores, is_bad, wrong = mixture(20_000, 0.05, 3.0)
    loose, strict = (calibrate(scores, wrong, 0.5, p) for p in (0.0, precision))
    assert strict.value < loose.value
    assert is_bad[scores < strict.value].mean() > precision - 0.05


def test_ties_among_the_bad_do_not_close_the_gate() -> None:
    good = np.random.default_rng(0).normal(5, 1, 700)
    gate = calibrate(np.concatenate([np.zeros(300), good]), np.zeros(1000), 0.05, 0.5)
    assert gate.caught == 1.0
    assert gate.lost <= 0.05


def test_threshold_is_saved_as_plain_numbers() -> None:
    gate = calibrate(np.arange(10.0), np.arange(10.0), 0.05, 0.5)
    assert {type(value) for value in gate.as_dict().values()} == {float}
    assert type(gate)(**gate.as_dict()) == gate
