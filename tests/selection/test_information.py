"""Methods by V-information: designs against plain inverses, and the gate, the window and the order of hardness."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.scoring.setlevel import subset_information
from curate_kernels.arrays import unit_rows
from curate_selectors.errors import SelectorError
from curate_selectors.information.design import Design
from curate_selectors.information.ivs import SetInformation
from curate_selectors.information.optidel import OptiDel, hardness_window
from curate_selectors.types import Candidates


def unit(rng: np.random.Generator, n: int, d: int = 6) -> np.ndarray:
    return unit_rows(rng.normal(size=(n, d)).astype(np.float32))


# --- ivs


def variance(x: np.ndarray, index: list[int] | tuple[int, ...], moment: np.ndarray, ridge: float) -> float:
    rows = x[list(index)].astype(np.float64)
    return float(np.trace(np.linalg.inv(ridge * np.eye(x.shape[1]) + rows.T @ rows) @ moment))


def plain_greedy(x: np.ndarray, count: int, moment: np.ndarray, ridge: float) -> list[int]:
    index: list[int] = []
    while len(index) < count:
        left = [i for i in range(len(x)) if i not in index]
        index.append(min(left, key=lambda i: variance(x, [*index, i], moment, ridge)))
    return index


def test_a_design_is_what_its_inverse_says(rng: np.random.Generator) -> None:
    """Before and after the exact computation that ends a run of rank-one updates."""
    x, moment = unit(rng, 100, 5), np.diag([5.0, 4, 3, 2, 1])
    state, sums = Design(x, 0.2, moment), 0.2 * np.eye(5)
    for row in range(70):
        state.take(row)
        sums += np.outer(x[row], x[row])
        inverse = np.linalg.inv(sums)
        np.testing.assert_allclose(state.h, np.einsum("ij,jk,ik->i", x, inverse, x), atol=1e-5)
        np.testing.assert_allclose(state.v, np.einsum("ij,jk,ik->i", x, inverse @ moment @ inverse, x), atol=1e-4)


@pytest.mark.parametrize("design", ["V", "A"])
@pytest.mark.parametrize("with_target", [False, True])
def test_picks_are_those_of_the_plain_greedy_loop(design: str, with_target: bool) -> None:
    rng = np.random.default_rng(1)
    x, target = unit(rng, 60), unit_rows((rng.normal(size=(20, 6)) * [9, 4, 1, 1, 1, 1]).astype(np.float32))
    of = (target if with_target else x).astype(np.float64)
    moment = np.eye(6) if design == "A" else of.T @ of / len(of)
    chosen = SetInformation(design).select(Candidates(n=60, x=x, target=target if with_target else None), 20, 0)
    assert chosen.index.tolist() == plain_greedy(x, 20, moment, 1 / 6)
    steps = [variance(x, chosen.index[:k], moment, 1 / 6) for k in range(21)]
    np.testing.assert_allclose(chosen.gain, -np.diff(steps), rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_off_nearly_as_much_as_the_best_set(seed: int) -> None:
    x = unit(np.random.default_rng(seed), 12, 4)
    moment = x.T @ x / 12
    best = min(variance(x, s, moment, 0.25) for s in combinations(range(12), 4))
    whole = variance(x, (), moment, 0.25)
    taken = whole - variance(x, SetInformation().select(Candidates(n=12, x=x), 4, 0).index, moment, 0.25)
    assert taken >= 0.95 * (whole - best)


def test_chosen_rows_teach_more_about_the_target_than_random_ones() -> None:
    """Of few samples in the directions that matter: linear truth, and the information of a held-out family."""
    rng = np.random.default_rng(2)
    x = unit_rows((rng.normal(size=(400, 10)) * np.geomspace(1, 0.05, 10)).astype(np.float32))
    y = (x @ rng.normal(size=(10, 3)) * 4 + 0.2 * rng.normal(size=(400, 3))).astype(np.float32)
    ours = subset_information(x, y, SetInformation("A").select(Candidates(n=400, x=x), 30, 0).index, 0.1).information
    random = [subset_information(x, y, rng.permutation(400)[:30], 0.1).information for _ in range(20)]
    assert ours > max(random)


def test_rows_near_the_target_come_first() -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 25, axis=0)
    chosen = SetInformation().select(Candidates(n=100, x=x, target=np.eye(4, dtype=np.float32)[2:3]), 10, 0)
    assert chosen.index.tolist() == list(range(50, 60))


@pytest.mark.parametrize("params", [{"design": "D"}, {"ridge": 0.0}])
def test_designs_that_do_not_exist_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(SelectorError, match="'V' or 'A' and ridge > 0"):
        SetInformation(**params)


# --- optidel, the window


def test_window_by_hand() -> None:
    assert hardness_window(10, 100, 10.0) == pytest.approx((0.225, 0.775))
    assert hardness_window(100, 100, 1.0) == (0.0, 1.0)
    assert hardness_window(0, 0, 1.0) == (0.0, 1.0)


@given(st.integers(0, 1000), st.integers(1, 1000), st.floats(0.01, 1000), st.floats(1, 100))
def test_window_has_room_for_the_budget_and_moves_up_with_training(
    count: int, n: int, epochs: float, more: float
) -> None:
    low, high = hardness_window(count, n, epochs)
    assert 0 <= low <= high <= 1 + 1e-12
    assert high - low >= min(count / n, 1) - 1e-12
    assert hardness_window(count, n, epochs * more)[0] >= low - 1e-12


# --- optidel


def pool(n: int = 200, noisy: int = 40) -> Candidates:
    """Clean rows of rising hardness; the last ones are noise: hardest of all, and of negative information."""
    rng = np.random.default_rng(3)
    hard = np.linspace(1, 5, n).astype(np.float32)
    pvi = (6 - hard + rng.random(n)).astype(np.float32)
    hard[n - noisy :] += 10
    pvi[n - noisy :] = -np.linspace(0.5, 5, noisy)
    return Candidates(n=n, x=unit(rng, n), scores={"pvi_self": pvi, "s1_self": hard})


def test_noise_is_never_taken_for_hard() -> None:
    """The rows of the highest surprise, or lowest information, are noise; neither sign ranks them."""
    data = pool()
    assert set(np.argsort(-data.scores["s1_self"])[:40]) == set(range(160, 200))
    for epochs in (0.1, 10.0, 1e6):
        assert OptiDel(epochs=epochs).select(data, 100, 0).index.max() < 160


def test_rows_behind_the_gate_fill_up_by_their_information() -> None:
    chosen = OptiDel().select(pool(), 170, 0).index
    assert set(chosen[:160]) == set(range(160))
    assert chosen[160:].tolist() == list(range(160, 170))


def test_more_training_takes_harder_rows() -> None:
    data = pool()
    hard = [
        float(data.scores["s1_self"][OptiDel(epochs=e).select(data, 20, 0).index].mean()) for e in (0.1, 8.0, 1000.0)
    ]
    assert hard[0] < hard[1] - 0.3 < hard[2] - 0.6


def test_inside_the_window_the_log_determinant_is_greedy() -> None:
    data = pool()
    chosen = OptiDel(epochs=8.0).select(data, 40, 0)
    low, high = hardness_window(40, 160, 8.0)
    window = range(int(np.floor(low * 160)), int(np.ceil(high * 160)))
    assert len(window) == 100

    def entropy(rows: np.ndarray) -> float:
        return float(np.linalg.slogdet(np.eye(6) + 6 * rows.T @ rows)[1]) / 2 / np.log(2)

    for step in range(40):
        taken = data.x[chosen.index[:step]].astype(np.float64)
        gain = {i: entropy(np.vstack([taken, data.x[i]])) for i in window if i not in chosen.index[:step]}
        assert gain[chosen.index[step]] >= max(gain.values()) - 1e-4
        assert gain[chosen.index[step]] - entropy(taken) == pytest.approx(chosen.gain[step], abs=1e-4)
    assert set(chosen.index.tolist()) <= set(window)


def test_another_view_is_read_by_its_name() -> None:
    data = pool()
    renamed = {name.replace("self", "label"): column for name, column in data.scores.items()}
    other = Candidates(n=data.n, x=data.x, scores=renamed)
    ours = OptiDel(view="label").select(other, 30, 0).index
    assert ours.tolist() == OptiDel().select(data, 30, 0).index.tolist()
    with pytest.raises(SelectorError, match="'optidel' needs the score 'pvi_self'"):
        OptiDel().select(other, 30, 0)
