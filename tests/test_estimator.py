"""`curate.Curator` is an estimator as scikit-learn knows them, and chooses what `curate.select` chooses."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid
from sklearn.utils.estimator_checks import estimator_checks_generator

import curate
from curate.errors import NotFittedError, UsageError
from curate_selectors.errors import UnknownSelectorError

ROOT = Path(__file__).parent.parent
ONE_PASS = ["infogrowth", "infogrowth-reference", "reservoir", "density-online", "ridge-leverage-online"]
# A transformer of scikit-learn gives a row for a row, whatever rows it is given; this one takes rows of the fit away.
FEWER_ROWS = {
    "check_transformer_general": "transform returns fewer rows than it is given",
    "check_transformer_data_not_an_array": "transform returns fewer rows than it is given",
    "check_methods_subset_invariance": "transform takes the rows that were fitted, not some of them",
    "check_methods_sample_order_invariance": "transform takes the rows that were fitted, in their order",
    "check_fit_idempotent": "transform takes the rows that were fitted, not others",
    "check_pipeline_consistency": "fit_transform(X, y) returns the chosen labels too",
}
CHECKS = [
    pytest.param(made, check, id=f"{made.method}-{getattr(check, 'func', check).__name__}-{number}")
    for made in (curate.Curator("kcenter"), curate.Curator("reservoir"))
    for number, (made, check) in enumerate(estimator_checks_generator(made))
]


def rows(n: int = 60, d: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize(("made", "check"), CHECKS)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks_it(made: curate.Curator, check: object) -> None:
    name = getattr(check, "func", check).__name__
    if name not in FEWER_ROWS:
        check(made)  # type: ignore[operator]
        return
    with pytest.raises((AssertionError, UsageError, IndexError, ValueError)):
        check(made)  # type: ignore[operator]


def test_it_is_an_estimator_of_scikit_learn() -> None:
    made = curate.Curator("kcenter", budget=0.5, random_state=3)
    assert isinstance(made, BaseEstimator)
    assert clone(made).get_params() == {"method": "kcenter", "budget": 0.5, "params": None, "random_state": 3}
    assert repr(made) == "Curator(budget=0.5, method='kcenter', random_state=3)"
    found = [clone(made).set_params(**p).fit(rows()).sample_indices_.size for p in ParameterGrid({"budget": [3, 0.5]})]
    assert found == [3, 30]


@pytest.mark.parametrize("method", ["kcenter", "facility-location", "infogrowth", "random"])
def test_fit_chooses_what_select_chooses(method: str) -> None:
    chosen = curate.select(rows(), method=method, budget=0.2, seed=5)
    made = curate.Curator(method, budget=0.2, random_state=5).fit(rows())
    assert made.ranking_.tolist() == made.ranking.tolist() == chosen.index.tolist()
    assert np.array_equal(made.gains_, chosen.gain)
    assert np.array_equal(made.gains, chosen.gain)
    assert np.array_equal(made.weights_, chosen.weight)
    assert np.array_equal(made.probabilities_, chosen.probability)
    assert made.sample_indices_.tolist() == sorted(chosen.index.tolist())
    assert np.array_equal(made.scores_[chosen.index], chosen.gain)
    assert np.isnan(np.delete(made.scores_, chosen.index)).all()
    assert (made.n_features_in_, made.n_samples_seen_) == (8, 60)


def test_labels_scores_and_parameters_reach_the_method() -> None:
    y = np.array(["a"] * 50 + ["b"] * 10)
    made = curate.Curator("water-fill", budget=12).fit(rows(), y)
    assert sorted(y[made.sample_indices_].tolist()) == ["a"] * 6 + ["b"] * 6
    scores = np.arange(60.0)
    top = curate.Curator("top-score", budget=3, params={"column": "mine"}).fit(rows(), scores={"mine": scores})
    assert top.ranking_.tolist() == [59, 58, 57]
    few = curate.Curator("kcenter", budget="100B").fit(rows(), sizes=[30] * 60)
    assert few.ranking_.size == 3


def test_support_is_of_rows() -> None:
    made = curate.Curator("kcenter", budget=7).fit(rows())
    assert made.get_support(indices=True).tolist() == made.sample_indices_.tolist()
    assert np.flatnonzero(made.get_support()).tolist() == made.sample_indices_.tolist()


def test_transform_takes_rows_of_whatever_it_is_given() -> None:
    x, y = rows(20), np.arange(20)
    made = curate.Curator("kcenter", budget=4).fit(x)
    at = made.sample_indices_
    assert np.array_equal(made.transform(x), x[at])
    fewer, labels, weight = made.transform(x.tolist(), y.tolist(), np.ones(20))
    assert np.array_equal(fewer, np.array(x.tolist())[at])
    assert (labels.tolist(), weight.shape) == (y[at].tolist(), (4,))
    names = [f"f{i}" for i in range(8)]
    panda, series = made.fit_transform(pd.DataFrame(x, columns=names, index=y + 100), pd.Series(y))
    assert panda.index.tolist() == (at + 100).tolist()
    assert series.tolist() == at.tolist()
    assert made.feature_names_in_.tolist() == names
    bear = made.fit_transform(pl.DataFrame(x, schema=names))
    assert bear.equals(pl.DataFrame(x, schema=names)[at])


def test_other_rows_than_the_fitted_are_refused() -> None:
    made = curate.Curator("kcenter", budget=4).fit(rows(20))
    with pytest.raises(UsageError, match="19 rows given, and 20 were fitted"):
        made.transform(rows(19))
    with pytest.raises(UsageError, match="21 rows given"):
        made.transform(rows(20), np.arange(21))
    with pytest.raises(ValueError, match="7 features"):
        made.transform(rows(20, 7))


def test_what_is_not_fitted_says_so() -> None:
    made = curate.Curator("kcenter")
    assert not hasattr(made, "ranking_")
    with pytest.raises(NotFittedError, match="call fit"):
        made.transform(rows())


@pytest.mark.parametrize("method", ONE_PASS)
@pytest.mark.parametrize("budget", [12, 0.2])
@given(cuts=st.lists(st.integers(1, 599), max_size=4, unique=True))
@settings(max_examples=5)
def test_batches_give_what_fit_gives(method: str, budget: float, cuts: list[int]) -> None:
    x = rows(600)
    whole = curate.Curator(method, budget=budget, random_state=2).fit(x)
    made = curate.Curator(method, budget=budget, random_state=2)
    for part in np.split(x, sorted(cuts)):
        made = pickle.loads(pickle.dumps(made.partial_fit(part)))
    assert made.ranking_.tolist() == whole.ranking_.tolist()
    assert np.array_equal(made.gains_, whole.gains_)
    assert np.array_equal(made.probabilities_, whole.probabilities_)
    assert made.n_samples_seen_ == 600


def test_looking_at_a_stream_does_not_change_it() -> None:
    x = rows(500)
    made, blind = (curate.Curator("density-online", budget=0.1) for _ in range(2))
    for part in np.split(x, 5):
        made.partial_fit(part)
        blind.partial_fit(part)
        assert made.ranking_.size == made.n_samples_seen_ // 10
    assert made.ranking_.tolist() == blind.ranking_.tolist()
    assert np.array_equal(made.transform(x), x[blind.sample_indices_])


def test_a_fit_forgets_a_stream() -> None:
    made = curate.Curator("reservoir", budget=5).partial_fit(rows(100))
    assert made.fit(rows(20, 3)).n_samples_seen_ == 20
    assert made.partial_fit(rows(30)).n_samples_seen_ == 30


def test_partial_fit_is_offered_where_one_pass_will_do() -> None:
    assert all(hasattr(curate.Curator(name), "partial_fit") for name in ONE_PASS)
    assert not any(hasattr(curate.Curator(name), "partial_fit") for name in ("kcenter", "sieve-streaming", "random"))
    with pytest.raises(AttributeError, match="'kcenter' needs all rows at once"):
        curate.Curator("kcenter").partial_fit(rows())
    with pytest.raises(UnknownSelectorError):
        curate.Curator("nothing").partial_fit(rows())
    with pytest.raises(ValueError, match="features"):
        curate.Curator("reservoir").partial_fit(rows()).partial_fit(rows(60, 3))
    few = curate.Curator("reservoir", budget="1MB").partial_fit(rows())
    with pytest.raises(UsageError, match="sizes="):
        _ = few.ranking_


@pytest.mark.parametrize(
    ("options", "data", "words"),
    [
        ({"method": "nothing"}, {}, "no method is called 'nothing'"),
        ({"budget": 0.0}, {}, "must lie in"),
        ({"budget": 61}, {}, "61 was asked"),
        ({"params": {"budget": 3}}, {}, "has no parameter budget"),
        ({"random_state": "x"}, {}, "random_state is 'x'"),
        ({}, {"smaples": 3}, "fit takes no smaples"),
        ({"method": "clip-score"}, {}, "needs"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], data: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        curate.Curator(**{"method": "kcenter", **options}).fit(rows(), **data)  # type: ignore[arg-type]


def test_random_states_of_numpy_are_seeds() -> None:
    for state in (np.random.RandomState, np.random.default_rng):
        first, again = (curate.Curator("random", random_state=state(4)).fit(rows()).ranking_ for _ in range(2))
        assert first.tolist() == again.tolist()
    assert curate.Curator("random", random_state=None).fit(rows()).ranking_.tolist() == first_of(0)


def first_of(seed: int) -> list[int]:
    return [int(i) for i in curate.select(rows(), method="random", budget=0.1, seed=seed).index]


def test_it_works_without_scikit_learn() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
import numpy as np, curate
x = np.random.default_rng(0).normal(size=(60, 8))
made = curate.Curator("kcenter", budget=5)
print(made.fit_transform(x).shape, made.set_params(budget=7).get_params(), made)
for bad in (lambda: made.transform(x[:, 1:]), lambda: made.set_params(buget=1), lambda: made.fit(x[0])):
    try:
        bad()
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={"PYTHONPATH": ".:kernels:selectors", "PATH": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("(5, 8) {'method': 'kcenter', 'budget': 7, 'params': None, 'random_state': 0} Curator(")
    assert "7 features, but Curator is expecting 8" in lines[1]
    assert "no parameter 'buget'" in lines[2]
    assert "(n, d) array is needed" in lines[3]
