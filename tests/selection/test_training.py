"""Methods on a probe's training, against the plain version of each paper on explicit gradients."""

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

import curate
from curate_kernels.arrays import unit_rows
from curate_selectors.errors import SelectorError
from curate_selectors.training.craig import Craig
from curate_selectors.training.dynamics import Forgetting, Grand
from curate_selectors.training.glister import Glister
from curate_selectors.training.gradmatch import GradMatch, NonNegative
from curate_selectors.training.infobatch import InfoBatch
from curate_selectors.training.probe import Labelled, softmax
from curate_selectors.types import Candidates


def blobs(n: int = 90, d: int = 6, classes: int = 3, seed: int = 0, spread: float = 0.6) -> Candidates:
    """Overlapping classes of unequal size."""
    rng = np.random.default_rng(seed)
    label = np.sort(rng.choice(classes, size=n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()))
    x = unit_rows((np.eye(classes, d)[label] + spread * rng.normal(size=(n, d))).astype(np.float32))
    return Candidates(n=n, x=x, label=label.astype(np.int64))


def gradients(data: Candidates, weight: np.ndarray) -> np.ndarray:
    """Explicit gradients of the last layer, (n, C·(d+1)), in the obvious way."""
    known = Labelled.of(data, "test")
    features = known.features(known.x)
    out = []
    for row, y in zip(features, known.y, strict=True):
        score = np.exp(weight @ row)
        p = score / score.sum()
        p[y] -= 1
        out.append(np.outer(p, row).reshape(-1))
    return np.array(out)


def loss(weight: np.ndarray, features: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(softmax(features @ weight.T)[np.arange(y.size), y]).mean())


# --- the probe


def test_gradients_are_those_of_the_loss() -> None:
    data = blobs(20)
    known = Labelled.of(data, "test")
    features = known.features(known.x)
    weight = known.trained(2, 0)
    mean = gradients(data, weight).mean(axis=0).reshape(weight.shape)
    for at in ((0, 0), (1, 3), (2, 6)):
        step = np.zeros_like(weight)
        step[at] = 1e-5
        slope = (loss(weight + step, features, known.y) - loss(weight - step, features, known.y)) / 2e-5
        assert mean[at] == pytest.approx(slope, abs=1e-7)
    explicit = (known.errors(weight)[:, :, None] * features[:, None, :]).reshape(20, -1)
    np.testing.assert_allclose(explicit, gradients(data, weight), atol=1e-6)


def test_training_lowers_the_loss_and_does_not_depend_on_the_scale_of_the_rows() -> None:
    data = blobs()
    known = Labelled.of(data, "test")
    features = known.features(known.x)
    losses = [loss(weight, features, known.y) for weight in known.train(8, 0)]
    assert losses[-1] < losses[0] < np.log(3)
    scaled = Labelled.of(Candidates(n=data.n, x=data.x * 4 + 1, label=data.label), "test")
    np.testing.assert_allclose(scaled.features(scaled.x), features, atol=1e-5)


@pytest.mark.parametrize("method", [Grand(), Forgetting(), Craig(), GradMatch(), Glister()])
def test_rows_without_a_label_come_last(method: Grand) -> None:
    data = blobs(30)
    data.label[[3, 17]] = -1
    index = method.select(data, 30, 0).index
    assert index[-2:].tolist() == [3, 17]
    data.label[:] = -1
    with pytest.raises(SelectorError, match="needs labels, and every one is unknown"):
        method.select(data, 3, 0)


# --- rankings


def test_rankings_follow_the_score_that_they_name() -> None:
    data = blobs(60)
    labels = [f"class {i}" for i in data.label]
    columns = curate.score(data.x, "probe", labels=labels)
    for method, column, sign in (("el2n", "el2n", -1), ("margin", "margin", 1), ("entropy", "entropy", -1)):
        chosen = curate.select(data.x, method=method, labels=labels, budget=9)
        expected = np.argsort(sign * columns[column], kind="stable")[:9]
        assert chosen.index.tolist() == expected.tolist()
    given = {"target": data.x[::7], "target_labels": labels[::7]}
    worth = curate.score(data.x, "knn-shapley", labels=labels, **given)["shapley_knn"]
    chosen = curate.select(data.x, method="knn-shapley", labels=labels, budget=9, **given)
    assert chosen.index.tolist() == np.argsort(-worth, kind="stable")[:9].tolist()
    inside = curate.select(data.x, method="in-run-shapley", labels=labels, budget=9, **given)
    assert inside.index.size == 9
    assert curate.select(data.x, method="bayes", labels=labels, budget=9).index.size == 9


def test_wrong_labels_are_what_errors_rank_first_and_shapley_values_last() -> None:
    data = blobs(150, spread=0.25)
    wrong = np.array([5, 60, 140])
    labels = data.label.copy()
    labels[wrong] = (labels[wrong] + 1) % 3
    assert set(wrong) <= set(curate.select(data.x, method="el2n", labels=labels, budget=6).index)
    clean = blobs(60, spread=0.25, seed=1)
    given = {"target": clean.x, "target_labels": clean.label}
    for method in ("knn-shapley", "in-run-shapley"):
        order = curate.select(data.x, method=method, labels=labels, budget=150, **given).index
        assert set(wrong) <= set(order[-12:])


def test_grand_is_the_mean_norm_of_explicit_gradients() -> None:
    data = blobs(50)
    known = Labelled.of(data, "test")
    norms = np.mean([np.linalg.norm(gradients(data, known.trained(2, seed)), axis=1) for seed in (4, 5, 6)], axis=0)
    chosen = Grand(repeats=3, epochs=2).select(data, 50, 4)
    np.testing.assert_allclose(chosen.gain, norms[chosen.index], rtol=1e-5)
    assert all(a >= b for a, b in pairwise(chosen.gain))


def test_forgetting_counts_turns_from_right_to_wrong() -> None:
    data = blobs(80, spread=1.0)
    known = Labelled.of(data, "test")
    right = np.array([(known.features(known.x) @ weight.T).argmax(axis=1) == known.y for weight in known.train(12, 3)])
    expected = (right[:-1] & ~right[1:]).sum(axis=0).astype(float)
    expected[~right.any(axis=0)] = 12
    chosen = Forgetting(epochs=12).select(data, 80, 3)
    assert chosen.gain.tolist() == expected[chosen.index].tolist()
    assert all(a >= b for a, b in pairwise(chosen.gain))
    assert len(set(expected)) > 2  # there is something to count


# --- craig


def plain_medoids(distance: np.ndarray, many: int) -> tuple[list[int], list[int]]:
    """Greedy k-medoids on the full matrix, and how many rows are nearest to each pick.

    Two rows that cover each other gain alike, so gains are rounded before they are compared.
    """
    picks: list[int] = []
    near = np.full(len(distance), 2 * distance.max() + 1)
    for _ in range(many):
        gain = np.maximum(near[:, None] - distance, 0).sum(axis=0).round(5)
        gain[picks] = -np.inf
        picks.append(int(np.argmax(gain)))
        near = np.minimum(near, distance[:, picks[-1]])
    owner = distance[:, picks].argmin(axis=1)
    return picks, np.bincount(owner, minlength=many).tolist()


def test_craig_is_the_plain_greedy_and_its_weights_sum_to_the_class() -> None:
    """DeepCore's weights start at 1 and count each medoid again; theirs sum to more than the class has."""
    data = blobs(80)
    gradient = gradients(data, Labelled.of(data, "test").trained(5, 0))
    chosen = Craig().select(data, 24, 0)
    for label in range(3):
        rows = np.flatnonzero(data.label == label)
        mine = np.flatnonzero(data.label[chosen.index] == label)
        distance = np.linalg.norm(gradient[rows][:, None] - gradient[rows], axis=2)
        picks, weights = plain_medoids(distance, mine.size)
        assert chosen.index[mine].tolist() == rows[picks].tolist()
        assert chosen.weight[mine].tolist() == weights
        assert chosen.weight[mine].sum() == rows.size


def test_all_rows_of_a_set_stand_for_themselves() -> None:
    data = blobs(40)
    np.testing.assert_array_equal(Craig().select(data, 40, 0).weight, 1.0)


def test_craig_holds_few_distances_at_once() -> None:
    """512 columns of 4,000 rows are 16 MB, and there are several such arrays."""
    data = blobs(4000, classes=1)
    tracemalloc.start()
    Craig(epochs=1).select(data, 5, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


# --- gradmatch


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 999))
def test_weights_are_the_best_that_are_not_negative_after_each_row(k: int, p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, aim, ridge = rng.normal(size=(k, p)), rng.normal(size=p) * 5, 0.1
    fit = NonNegative(rows, aim, ridge, k)
    order = rng.permutation(k)
    for done, row in enumerate(order, 1):
        fit.add(int(row))
        some = rows[order[:done]]
        expected, _ = nnls(np.vstack([some.T, np.sqrt(ridge) * np.eye(done)]), np.append(aim, np.zeros(done)))
        np.testing.assert_allclose(fit.weight[order[:done]], expected, atol=1e-7)
    assert not fit.weight[np.setdiff1d(np.arange(k), order)].any()


def test_gradmatch_solves_with_one_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refactored at each pick, k of them take O(k⁴)."""
    sizes: list[int] = []
    for name in ("solve", "cholesky"):
        plain = getattr(np.linalg, name)
        monkeypatch.setattr(np.linalg, name, lambda a, *b, plain=plain: (sizes.append(len(a)), plain(a, *b))[1])
    data = blobs(300, d=24)
    assert (GradMatch().select(data, 60, 0).weight > 0).mean() > 0.9
    assert len(sizes) <= 6


def test_gradmatch_is_plain_matching_pursuit() -> None:
    data = blobs(60)
    known = Labelled.of(data, "test")
    weight = known.trained(5, 0)
    own = gradients(data, weight).reshape(60, 3, -1)[np.arange(60), known.y]
    chosen = GradMatch(ridge=0.5).select(data, 18, 0)
    for label in range(3):
        rows = np.flatnonzero(data.label == label)
        mine = np.flatnonzero(data.label[chosen.index] == label)
        g = own[rows]
        ridge = 0.5 * (g * g).sum() / rows.size
        picks: list[int] = []
        w = np.zeros(0)
        for _ in range(mine.size):
            left = g.sum(axis=0) - w @ g[picks]
            match = g @ left
            match[picks] = -np.inf
            picks.append(int(np.argmax(match)))
            padded = np.append(g.sum(axis=0), np.zeros(len(picks)))
            w, _ = nnls(np.vstack([g[picks].T, np.sqrt(ridge) * np.eye(len(picks))]), padded)
        assert chosen.index[mine].tolist() == rows[picks].tolist()
        np.testing.assert_allclose(chosen.weight[mine], w, rtol=1e-4, atol=1e-5)


def test_matched_gradients_are_nearer_to_the_sum_than_random_rows_are() -> None:
    data = blobs(200)
    known = Labelled.of(data, "test")
    own = gradients(data, known.trained(5, 0)).reshape(200, 3, -1)[np.arange(200), known.y]

    def miss(index: np.ndarray, weight: np.ndarray) -> float:
        classes = data.label[index]
        parts = [own[data.label == c].sum(axis=0) - weight[classes == c] @ own[index[classes == c]] for c in range(3)]
        return float(np.linalg.norm(parts))

    chosen = GradMatch(ridge=1e-3).select(data, 20, 0)
    drawn = np.random.default_rng(0).choice(200, 20, replace=False)
    assert miss(chosen.index, chosen.weight) < 0.3 * miss(drawn, np.full(20, 10.0))


# --- glister


def plain_glister(data: Candidates, count: int, step: int, rate: float) -> list[int]:
    known = Labelled.of(data, "test")
    weight = known.trained(3, 0)
    own = gradients(data, weight)
    picks: list[int] = []
    while len(picks) < count:
        value = (own @ gradients(data, weight).mean(axis=0)).astype(np.float32)
        value[picks] = -np.inf
        new = np.argsort(-value, kind="stable")[:step].tolist()
        picks += new
        weight = weight - rate * own[new].sum(axis=0).reshape(weight.shape)
    return picks[:count]


def test_glister_is_the_plain_greedy_and_its_state_is_updated() -> None:
    """DeepCore passes a misspelt keyword, so its validation gradient never changes and the ranking is a static one."""
    data = blobs(70)
    chosen = Glister(step=4, rate=0.2).select(data, 30, 0).index.tolist()
    assert chosen == plain_glister(data, 30, 4, 0.2)
    static = Glister(step=70).select(data, 30, 0).index.tolist()
    assert chosen[:4] == static[:4]
    assert chosen != static


def test_glister_lowers_the_loss_on_the_target_more_than_random_rows_do() -> None:
    data, aim = blobs(200), blobs(60, seed=1)
    aimed = Candidates(n=200, x=data.x, label=data.label, target=aim.x, target_label=aim.label)
    known = Labelled.of(data, "test")
    weight = known.trained(3, 0)
    own = gradients(data, weight)

    def after(index: np.ndarray) -> float:
        moved = weight - 0.05 * own[index].sum(axis=0).reshape(weight.shape)
        return loss(moved, known.features(aim.x), aim.label)

    drawn = [after(np.random.default_rng(seed).choice(200, 20, replace=False)) for seed in range(5)]
    assert after(Glister().select(aimed, 20, 0).index) < min(drawn)
    chosen = curate.select(
        data.x, method="glister", labels=data.label, target=aim.x, target_labels=aim.label, budget=20
    )
    assert chosen.index.tolist() == Glister().select(aimed, 20, 0).index.tolist()


@pytest.mark.parametrize("label", [None, [-1] * 20, [7] * 20])
def test_glister_refuses_a_target_whose_labels_tell_nothing(label: list[int] | None) -> None:
    aim = blobs(20, seed=1)
    label_ = None if label is None else np.array(label, dtype=np.int64)
    data = replace(blobs(40), target=aim.x, target_label=label_)
    with pytest.raises(SelectorError, match="target"):
        Glister().select(data, 5, 0)


# --- infobatch


def test_infobatch_keeps_hard_rows_and_its_sums_are_unbiased() -> None:
    p = np.random.default_rng(0).uniform(0.05, 0.99, size=80).astype(np.float32)
    data = Candidates(n=80, scores={"confidence": p})
    loss_ = -np.log(p)
    hard = loss_ >= loss_.mean()
    sums = []
    for seed in range(400):
        chosen = InfoBatch().select(data, 50, seed)
        assert set(np.flatnonzero(hard)) <= set(chosen.index)
        sums.append((loss_[chosen.index] / chosen.probability).sum())
    assert abs(np.mean(sums) - loss_.sum()) < 4 * np.std(sums) / 20
    assert (chosen.probability[hard[chosen.index]] == 1).all()
    rate = 1 - (50 - hard.sum()) / (~hard).sum()
    np.testing.assert_allclose(chosen.probability[~hard[chosen.index]], 1 - rate, rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "settings"),
    [(Grand, {"epochs": 0}), (Grand, {"repeats": 0}), (Forgetting, {"epochs": 0}), (GradMatch, {"ridge": 0.0}),
     (Glister, {"step": 0}), (Glister, {"rate": 0.0}), (Glister, {"epochs": 0}), (Craig, {"epochs": 0}),
     (GradMatch, {"epochs": -1})],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(method: type, settings: dict[str, float]) -> None:
    with pytest.raises(SelectorError, match=next(iter(settings))):
        method(**settings)
