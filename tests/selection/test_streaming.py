"""Methods of one pass: what they draw, how likely it was, and that they read each row once."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.scoring.race import Race
from curate_kernels.arrays import unit_rows
from curate_selectors.errors import SelectorError
from curate_selectors.registry import make
from curate_selectors.sampling import Reservoir, draw
from curate_selectors.sketch import Sketch
from curate_selectors.streaming.density import DensityOnline
from curate_selectors.streaming.leverage import RidgeLeverageOnline, leverages
from curate_selectors.streaming.reservoir import UniformReservoir
from curate_selectors.streaming.sieve import SieveStreaming
from curate_selectors.types import Candidates


def unit(rng: np.random.Generator, n: int, d: int = 8) -> np.ndarray:
    return unit_rows(rng.normal(size=(n, d)).astype(np.float32))


def of(x: np.ndarray) -> Candidates:
    return Candidates(n=len(x), x=x)


def clusters(sizes: list[int], d: int = 32, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Rows in random order around as many centres, and the cluster of each."""
    rng = np.random.default_rng(5)
    label = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centre = unit(rng, len(sizes), d)[label]
    return unit_rows((centre + noise / np.sqrt(d) * rng.normal(size=centre.shape)).astype(np.float32)), label


# --- draws


def test_draws_are_in_proportion_to_the_weights() -> None:
    weight = np.array([1.0, 2.0, 0.0, 5.0])
    with np.errstate(divide="ignore"):
        first = [draw(np.log(weight), 1, seed)[0][0] for seed in range(2000)]
    np.testing.assert_allclose(np.bincount(first, minlength=4) / 2000, weight / 8, atol=0.045)


def test_rows_of_no_weight_come_last_in_order() -> None:
    index, chance = draw(np.array([-np.inf, 0.0, -np.inf, 1.0]), 4, 0)
    assert index[2:].tolist() == [0, 2]
    assert chance.tolist() == [1, 1, 1, 1]


def test_weights_far_apart_do_not_overflow() -> None:
    index, chance = draw(np.array([-740.0, 0.0, 2000.0, 1260.0, -1e5]), 4, 0)
    assert index.tolist() == [2, 3, 1, 0]
    assert ((chance > 0) & (chance <= 1)).all()


@given(st.lists(st.integers(-3, 3), max_size=60), st.integers(0, 70), st.integers(1, 20))
def test_reservoir_keeps_the_largest_keys(keys: list[int], count: int, portion: int) -> None:
    """Small whole numbers tie often; the first of equals stays."""
    kept = Reservoir(count)
    key = np.array(keys, dtype=np.float64)
    for start in range(0, len(keys), portion):
        part = key[start : start + portion]
        kept.add(part, np.zeros(part.size), part.astype(np.float32))
    chosen = kept.chosen()
    assert chosen.index.tolist() == sorted(range(len(keys)), key=lambda i: (-keys[i], i))[:count]
    assert chosen.gain.tolist() == [keys[i] for i in chosen.index]


def test_reservoir_forgets_rows_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate_selectors.sampling._LEAST", 10)
    rng = np.random.default_rng(0)
    key = rng.integers(0, 50, 5000).astype(np.float64)
    kept = Reservoir(20)
    for start in range(0, 5000, 7):
        part = key[start : start + 7]
        kept.add(part, np.zeros(part.size), part.astype(np.float32))
        assert kept._size <= 2 * 20 + 10 + 7
    assert kept.chosen().index.tolist() == np.argsort(-key, kind="stable")[:20].tolist()


def test_sums_weighted_by_the_inverse_chance_are_unbiased() -> None:
    weight = np.linspace(0.05, 2, 60)
    value = np.sin(np.arange(60)) + 2
    sums = []
    for seed in range(2000):
        kept = Reservoir(12)
        log_weight = np.log(weight)
        gumbel = np.random.default_rng(seed).gumbel(size=60)
        kept.add(log_weight + gumbel, log_weight, value.astype(np.float32))
        chosen = kept.chosen()
        sums.append((value[chosen.index] / chosen.probability).sum())
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - value.sum()) < 4 * error


# --- one pass


class Stream:
    """Rows that can be read by slices only; counts what was read, and the largest portion."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape, self.ndim, self.read, self.portion = x, x.shape, 2, 0, 0

    def __getitem__(self, at: slice) -> np.ndarray:
        rows = self.x[at]
        self.read += len(rows)
        self.portion = max(self.portion, len(rows))
        return rows


ONE_PASS = {
    "sieve-streaming": {"reference": 100},
    "density-online": {"hashes": 20},
    "ridge-leverage-online": {},
    "reservoir": {},
}


@pytest.mark.parametrize("method", ONE_PASS)
def test_each_row_is_read_once_and_in_portions(method: str) -> None:
    """float16 rows, as a memory map of stored embeddings has them."""
    x = unit(np.random.default_rng(0), 9000).astype(np.float16)
    stream = Stream(x)
    lazy = make(method, **ONE_PASS[method]).select(Candidates(n=9000, x=stream), 50, 1)
    assert stream.read <= 9000 + 100
    assert stream.portion <= 4096
    whole = make(method, **ONE_PASS[method]).select(of(x.astype(np.float32)), 50, 1)
    assert lazy.index.tolist() == whole.index.tolist()


def test_reservoir_takes_every_row_equally_often() -> None:
    taken = np.zeros(20)
    for seed in range(2000):
        taken[UniformReservoir().select(Candidates(n=20), 5, seed).index] += 1
    assert np.abs(taken / 2000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_reservoir_takes_as_much_from_every_part_of_a_long_stream() -> None:
    chosen = UniformReservoir().select(Candidates(n=40_000), 4000, 0)
    quarters = np.bincount(chosen.index // 10_000, minlength=4)
    assert np.abs(quarters - 1000).max() < 5 * np.sqrt(750)
    np.testing.assert_allclose(chosen.probability, 0.1)


# --- density-online


def test_sketch_counts_what_the_engines_sketch_counts() -> None:
    x, _ = clusters([300, 50])
    ours, theirs = Sketch(x, 50, 6, 3), Race.around(x, 50, 6, 3)
    ours.add(ours.codes(x[:200]))
    theirs.add(x[:200])
    np.testing.assert_allclose(ours.query(ours.codes(x)), theirs.query(x))


def test_online_density_evens_clusters_out() -> None:
    x, label = clusters([6000, 1500, 300, 60], noise=0.1)
    chosen = DensityOnline(hashes=200).select(of(x), 400, 0)
    share = np.bincount(label[chosen.index], minlength=4) / 400
    assert share[0] < 0.5  # of the rows it is .76
    assert share[3] > 3 * 60 / 7860
    estimate = np.bincount(label[chosen.index], 1 / chosen.probability, minlength=4)
    np.testing.assert_allclose(estimate, [6000, 1500, 300, 60], rtol=0.35)


def test_when_a_row_came_does_not_matter_to_online_density() -> None:
    x, _ = clusters([10_000, 4000, 2000])
    index = DensityOnline(hashes=100).select(of(x), 4000, 0).index
    quarters = np.bincount(index // 4000, minlength=4)
    assert np.abs(quarters - 1000).max() < 5 * np.sqrt(750)


# --- ridge-leverage-online


def plain_leverages(x: np.ndarray, ridge: float) -> list[float]:
    sums, found = ridge * np.eye(x.shape[1]), []
    for row in x.astype(np.float64):
        found.append(min(1.0, row @ np.linalg.inv(sums) @ row))
        sums += np.outer(row, row)
    return found


@pytest.mark.parametrize("portion", [1, 7, 50])
def test_leverages_equal_one_inverse_per_row(portion: int) -> None:
    x = unit(np.random.default_rng(2), 50, 6)
    sums = 0.3 * np.eye(6)
    found = np.concatenate([leverages(x[i : i + portion], sums) for i in range(0, 50, portion)])
    np.testing.assert_allclose(found, plain_leverages(x, 0.3), atol=1e-9)


def test_weighted_picks_have_the_second_moments_of_all_rows() -> None:
    rng = np.random.default_rng(3)
    x = unit_rows((rng.normal(size=(2000, 6)) * [8, 4, 2, 1, 0.5, 0.1]).astype(np.float32))
    whole = x.T @ x + np.eye(6)
    total = np.zeros((6, 6))
    for seed in range(20):
        chosen = RidgeLeverageOnline().select(of(x), 400, seed)
        rows = x[chosen.index].astype(np.float64)
        total += (rows / chosen.probability[:, None]).T @ rows / 20
    half = np.linalg.inv(np.linalg.cholesky(whole))
    error = np.linalg.eigvalsh(half @ (total + np.eye(6)) @ half.T)
    assert 0.8 < error.min() < error.max() < 1.2


def test_a_rare_direction_is_kept() -> None:
    rng = np.random.default_rng(4)
    x = np.zeros((2000, 5), dtype=np.float32)
    x[:, :4] = unit(rng, 2000, 4)
    x[1321] = [0, 0, 0, 0, 1]
    kept = [1321 in RidgeLeverageOnline().select(of(x), 100, seed).index for seed in range(12)]
    assert np.mean(kept) > 0.9  # a uniform draw has it in 5 %


# --- sieve-streaming


def value(x: np.ndarray, index: np.ndarray | tuple[int, ...]) -> float:
    return float(np.maximum(x @ x[list(index)].T, 0).max(axis=1).mean()) if len(index) else 0.0


def greedy(x: np.ndarray, count: int) -> list[int]:
    index: list[int] = []
    while len(index) < count:
        index.append(max((i for i in range(len(x)) if i not in index), key=lambda i: value(x, [*index, i])))
    return index


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("order", ["random", "worst first", "best first"])
def test_sieve_has_half_of_what_greedy_has(plus: bool, order: str) -> None:
    x, _ = clusters([40, 30, 20, 6, 4], d=8)
    single = np.maximum(x @ x.T, 0).mean(axis=1)
    x = x[{"random": np.arange(100), "worst first": np.argsort(single), "best first": np.argsort(-single)}[order]]
    chosen = SieveStreaming(plus=plus).select(of(x), 8, 0)
    assert value(x, chosen.index) >= (0.5 - 0.1) * value(x, greedy(x, 8))
    assert chosen.gain.sum() <= value(x, chosen.index) + 1e-5


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_sieve_alone_has_half_of_the_best_value(plus: bool, seed: int) -> None:
    """What the sieve took, without the draws that fill up."""
    x = unit(np.random.default_rng(seed), 12, 3)
    best = max(value(x, s) for s in combinations(range(12), 3))
    chosen = SieveStreaming(plus=plus).select(of(x), 3, 0)
    assert chosen.gain.sum() >= (0.5 - 0.1) * best


def test_sieve_gains_add_up_to_the_value_of_its_picks() -> None:
    x = unit(np.random.default_rng(7), 200, 6)
    chosen = SieveStreaming().select(of(x), 10, 0)
    taken = chosen.index[chosen.gain > 0]
    assert taken.size >= 5
    assert chosen.gain.sum() == pytest.approx(value(x, taken), abs=1e-5)


def test_rows_that_fill_up_tell_their_chance() -> None:
    x = np.tile(np.float32([1, 0]), (30, 1))
    chosen = SieveStreaming().select(of(x), 4, 0)
    assert chosen.gain[0] == 1
    np.testing.assert_allclose(chosen.probability[chosen.gain == 0], 3 / 29)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sieve-streaming", {"epsilon": 0.0}),
        ("sieve-streaming", {"reference": 0}),
        ("density-online", {"bits": 17}),
        ("ridge-leverage-online", {"ridge": 0.0}),
    ],
)
def test_parameters_out_of_range_are_refused(method: str, params: dict[str, float]) -> None:
    with pytest.raises(SelectorError, match=next(iter(params))):
        make(method, **params)


@pytest.mark.parametrize("method", ["sieve-streaming", "density-online", "ridge-leverage-online"])
def test_without_embeddings_a_method_says_so(method: str) -> None:
    with pytest.raises(SelectorError, match=f"'{method}' needs embeddings"):
        make(method).select(Candidates(n=3), 1, 0)
