"""What a method's parameters make of it: nested or not, by chance or not; and budgets that follow from that."""

import numpy as np
import pytest

import curate
from curate.selection import choose as choose_module
from curate_kernels.arrays import unit_rows
from curate_selectors.checks import check_nested
from curate_selectors.entry import Entry
from curate_selectors.inputs import in_order
from curate_selectors.registry import entry, make
from curate_selectors.types import Candidates, Selection

N = 300
X = unit_rows(np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32))
SIZES = np.random.default_rng(1).integers(100, 10_000, N)


@pytest.mark.parametrize("params", [{"neighbors": 0, "epsilon": 0.1}, {"parts": 4}])
def test_parameters_that_make_a_method_not_nested_are_seen(params: dict[str, float]) -> None:
    method = "facility-location"
    assert entry(method).nested_as(make(method))
    assert not entry(method).nested_as(make(method, **params))
    check_nested(lambda: make(method, **params), entry(method))
    for budget in (20_000, 200_000):
        for seed in range(4):
            chosen = curate.select(X, method=method, budget=f"{budget}B", sizes=SIZES, seed=seed, **params)
            assert 0 < SIZES[chosen.index].sum() <= budget


class Turns:
    """Wrongly said to be nested: for each count another row comes first."""

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        index = np.roll(np.arange(data.n), count)[:count]
        return in_order(index, np.ones(count, dtype=np.float32))


def test_bytes_are_not_exceeded_by_a_method_that_is_wrongly_said_to_be_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_module, "entry", lambda name: Entry("", ("subset",), (), "none", "Turns."))
    monkeypatch.setattr(choose_module, "make", lambda name: Turns())
    sizes = np.array([1, 1, 1, 1, 100, 1, 1, 1])
    amount = choose_module.Amount(bytes=6)
    for rolled in range(8):
        here = np.roll(sizes, rolled)
        chosen = choose_module.choose(Candidates(n=8), "turns", amount, here, 0)
        assert here[chosen.index].sum() <= 6


@pytest.mark.parametrize("method", ["craig", "gradmatch"])
def test_weights_of_a_full_count_are_not_those_of_a_prefix(method: str) -> None:
    assert not entry(method).nested
    with pytest.raises(AssertionError, match="weights"):
        check_nested(lambda: make(method), Entry("", ("subset",), ("embeddings", "labels"), "none", "Nested."))


def test_rows_that_constraints_leave_to_chance_are_not_told_as_certain() -> None:
    """Only 50 rows gain anything, so that a budget of 60 takes all of them; the constraint lets in 30."""
    gain, half = np.zeros(N, dtype=np.float32), ["a" if i < 50 else "b" for i in range(N)]
    gain[:50] = 1
    bound = curate.Constraints((curate.Quota("half", max=30, value="a"),))
    chosen = curate.select(
        method="infogrowth", budget=60, scores={"gain": gain}, columns={"half": half}, constraints=bound
    )
    assert np.isnan(chosen.probability).all()


@pytest.mark.parametrize(("params", "certain"), [({}, False), ({"score": "s"}, True)])
def test_parameters_decide_whether_a_method_draws(params: dict[str, str], certain: bool) -> None:
    labels, bound = ["ab"[i % 2] for i in range(20)], curate.Constraints((curate.Quota("label", max=6),))
    options = {"labels": labels, "scores": {"s": np.arange(20)}, "constraints": bound}
    chosen = curate.select(method="water-fill", budget=9, **options, **params)
    assert (chosen.probability == 1).all() == certain
    assert np.isnan(chosen.probability).all() != certain


def test_whoever_is_taken_with_all_others_is_certain() -> None:
    bound = curate.Constraints((curate.Quota("label", min=1),))
    chosen = curate.select(method="random", budget=20, labels=["a", "b"] * 10, constraints=bound)
    assert (chosen.probability == 1).all()
