"""Every subset method passes the conformance suite, and the suite can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

import curate
from curate.errors import UsageError
from curate_kernels.arrays import unit_rows
from curate_selectors.checks import Check, Make, subset_checks
from curate_selectors.entry import Entry
from curate_selectors.errors import SelectorError
from curate_selectors.infogrowth import InfoGrowth
from curate_selectors.inputs import check_count, need_rows
from curate_selectors.registry import METHODS, entry, make, methods_reference
from curate_selectors.synthetic import candidates
from curate_selectors.types import Candidates, Selection
from curate_selectors.uniform import Random

CHECKS = {check.__name__: check for check in subset_checks()}
SUBSET = sorted(name for name, row in METHODS.items() if "subset" in row.kind)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", SUBSET)
def test_method_passes(method: str, check: str) -> None:
    CHECKS[check](lambda: make(method), entry(method))


ANY = Entry("", ("subset",), ("embeddings", "score:quality"), "paper", "Summary.")


def first(data: Candidates, count: int) -> Selection:
    index = np.arange(count, dtype=np.int64)
    ones = np.ones(count, dtype=np.float32)
    return Selection(index, ones, ones, ones)


class OneTooMany:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return first(data, min(count + 1, data.n))


class DropsZeroRows:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return first(data, min(count, int((need_rows(data, "bad") ** 2).sum(axis=1).astype(bool).sum())))


class Normalises:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        data.x[:] = unit_rows(data.x + 1)
        return first(data, count)


class Unseeded:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return Random().select(data, count, int(np.random.default_rng().integers(2**31)))


class SortsItsPicks:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        chosen = Random().select(data, count, seed)
        return Selection(np.sort(chosen.index), chosen.gain, chosen.weight, chosen.probability)


class AcceptsAnyCount:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return first(data, int(np.clip(count, 0, data.n)))


class ReadsNaN:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        check_count(data, count)
        index = np.argsort(data.x[:, 2], kind="stable")[::-1][:count].astype(np.int64)
        ones = np.ones(count, dtype=np.float32)
        return Selection(index, ones, ones, ones)


class ReadsScoresWithInfinity:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        check_count(data, count)
        need_rows(data, "bad")
        return picked(np.argsort(-data.scores["quality"], kind="stable")[:count])


class HighestOfEquals:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        check_count(data, count)
        order = np.argsort(need_rows(data, "bad")[::-1, 0], kind="stable")
        return picked((data.n - 1 - order)[:count])


class HandsOutLabels:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        chosen = first(data, count)
        return Selection(chosen.index, data.scores["quality"][:count], chosen.weight, chosen.probability)


class ReadsTheGlobalGenerator:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return Random().select(data, count, int(np.random.randint(2**31)))  # noqa: NPY002


class CountsThreads:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        threads = max([pool["num_threads"] for pool in threadpoolctl.threadpool_info()], default=1)
        return Random().select(data, count, threads)


class AllPairs:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        check_count(data, count)
        x = need_rows(data, "bad")
        return picked(np.argsort((x @ x.T).sum(axis=1), kind="stable")[:count])


class MindsTheLayout:
    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        check_count(data, count)
        x = data.x
        order = np.argsort(x[:, 0], kind="stable")
        return picked((order if x.flags.c_contiguous else order[::-1])[:count])


class TakesWhatItWantsOfTiles:
    tiled = True

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        check_count(data, count)
        return picked(np.argsort(data.x[np.arange(data.n)][:, 0], kind="stable")[:count])


class ForgetsEarlierBatches:
    """Chooses the first rows of all, but of batches those of the last."""

    def __init__(self) -> None:
        self.last = np.zeros(0, dtype=np.int64)
        self.seen = 0

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        return first(data, count)

    def begin(self, count: int | None, seed: int) -> ForgetsEarlierBatches:
        return self

    def add(self, x: np.ndarray) -> None:
        self.last, self.seen = np.arange(self.seen, self.seen + len(x)), self.seen + len(x)

    def chosen(self, count: int) -> Selection:
        return picked(self.last[:count])


def picked(index: np.ndarray) -> Selection:
    ones = np.ones(index.size, dtype=np.float32)
    return Selection(index.astype(np.int64), ones, ones, ones)


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        ("check_counts", OneTooMany),
        ("check_degenerate_rows", DropsZeroRows),
        ("check_purity", Normalises),
        ("check_repeatable", Unseeded),
        ("check_nested", SortsItsPicks),
        ("check_draws", Random),
        ("check_refusals", AcceptsAnyCount),
        ("check_refusals", ReadsNaN),
        ("check_refusals", ReadsScoresWithInfinity),
        ("check_ties", HighestOfEquals),
        ("check_purity", HandsOutLabels),
        ("check_repeatable", ReadsTheGlobalGenerator),
        ("check_threads", CountsThreads),
        ("check_memory", AllPairs),
        ("check_layout", MindsTheLayout),
        ("check_tiles", TakesWhatItWantsOfTiles),
        ("check_batches", ForgetsEarlierBatches),
    ],
)
def test_bad_selector_fails(check: str, bad: Make) -> None:
    failing: Check = CHECKS[check]
    with pytest.raises(AssertionError):
        failing(bad, ANY)


def test_every_check_has_a_selector_that_fails_it() -> None:
    named = test_bad_selector_fails.pytestmark[0].args[1]
    assert {check for check, _ in named} == set(CHECKS)


def test_unknown_method_is_named_with_those_that_exist() -> None:
    with pytest.raises(SelectorError, match=r"'magic'; there are: .*infogrowth, infogrowth-labelled, .*kcenter"):
        entry("magic")


def test_every_method_says_who_wrote_it_and_what_it_does() -> None:
    for row in METHODS.values():
        assert row.paper
        assert row.summary.endswith(".")


# --- on plain arrays


def given(method: str, x: np.ndarray) -> dict[str, object]:
    """All that a method may need, by the names of `curate.select`."""
    data = candidates(unit_rows(x.astype(np.float32)), make(method), entry(method))
    return {
        "text": data.text,
        "target": data.target,
        "target_labels": list(data.target_label),
        "labels": list(data.label),
        "groups": list(data.group),
        "captions": data.captions,
        "scores": data.scores,
    }


@pytest.mark.parametrize("method", SUBSET)
def test_half_precision_and_strides_do_not_matter(method: str) -> None:
    half = np.random.default_rng(3).normal(size=(80, 12)).astype(np.float16)
    strided = np.asfortranarray(np.repeat(half, 2, axis=1))[:, ::2]
    usual = curate.select(half.astype(np.float32), method=method, budget=11, **given(method, half))
    for x in (half, strided):
        chosen = curate.select(x, method=method, budget=11, **given(method, half))
        assert chosen.index.tolist() == usual.index.tolist()


@pytest.mark.parametrize("method", SUBSET)
def test_a_budget_above_the_candidates_is_a_usage_error(method: str) -> None:
    x = np.random.default_rng(3).normal(size=(9, 6))
    with pytest.raises(UsageError, match="budget of 10"):
        curate.select(x, method=method, budget=10, **given(method, x))


# --- other packages


PLUGIN = """
from dataclasses import dataclass
from curate_selectors.entry import Entry
from curate_selectors.inputs import check_count, in_order, need_score
import numpy as np

@dataclass(frozen=True)
class Brightest:
    score: str = "quality_brightness"

    def select(self, data, count, seed):
        check_count(data, count)
        value = need_score(data, self.score, "brightest")
        index = np.argsort(-value, kind="stable")[:count]
        return in_order(index, value[index])

ENTRY = Entry("bright_plugin:Brightest", ("subset",), ("score:{score}",), "none", "The brightest images.")
BROKEN = 3
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bright_plugin.py").write_text(PLUGIN)
    info = tmp_path / "bright-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bright\nVersion: 1.0\n")
    points = ["brightest = bright_plugin:ENTRY", "random = bright_plugin:ENTRY"]
    (info / "entry_points.txt").write_text("\n".join(["[curate.selectors]", *points, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("plugin")
def test_a_method_of_another_package_is_listed_made_and_passes_the_suite() -> None:
    listed = {row["name"]: row for row in curate.methods()}
    assert listed["brightest"]["needs"] == ["score:{score}"]
    assert listed["random"]["summary"] != "The brightest images."  # no package changes what a name means
    for check in CHECKS.values():
        check(lambda: make("brightest"), entry("brightest"))
    chosen = curate.select(None, method="brightest", budget=2, score="q", scores={"q": [1, 3, 2]})
    assert chosen.index.tolist() == [1, 2]


def test_a_method_that_cannot_be_loaded_is_named(plugin: None, tmp_path: Path) -> None:
    points = tmp_path / "bright-1.0.dist-info" / "entry_points.txt"
    for value, message in (("nowhere:ENTRY", "cannot be loaded"), ("bright_plugin:BROKEN", "is no curate_selectors")):
        points.write_text(f"[curate.selectors]\nbrightest = {value}\n")
        with pytest.raises(SelectorError, match=f"'brightest'.*{message}"):
            make("brightest")


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("infogrowth", {"quantile": 0.0}, "quantile is 0.0"),
        ("infogrowth", {"quantile": 2}, "quantile is 2.0"),
        ("infogrowth-reference", {"quantile": 2}, "quantile is 2.0"),
        ("infogrowth", {"bar": (0.0, 1.0)}, "no parameter bar; it has: k, .*quantile$"),
        ("kcenter", {"block": 0}, "block is 0"),
        ("semdedup", {"clusters": -1}, "clusters is -1"),
        ("d4", {"clusters": -1}, "clusters is -1"),
        ("prototypes", {"clusters": -1}, "clusters is -1"),
        ("hierarchical", {"levels": "[10,3]"}, r"levels of 'hierarchical' is '\[10,3\]'; it must be a list"),
        ("hierarchical", {"levels": [10, 2.5]}, "levels of 'hierarchical', entry 2, is 2.5; it must be a whole number"),
        ("metaclip", {"entries": ["a", 3]}, "entries of 'metaclip', entry 2, is 3; it must be text"),
    ],
)
def test_a_parameter_out_of_range_is_refused(method: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        make(method, **params)


def test_lists_are_tuples_of_what_the_field_says() -> None:
    assert make("hierarchical", levels=[10, 3]).levels == (10, 3)


def test_what_the_engine_alone_sets_is_no_parameter() -> None:
    assert InfoGrowth(bar=(0.0, 1.0)).bar == (0.0, 1.0)
    assert "bar" not in methods_reference().partition("### infogrowth\n")[2].partition("### infogrowth-reference")[0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"block": 1.5}, "block of 'kcenter' is 1.5; it must be a whole number"),
        ({"block": True}, "must be a whole number"),
        ({"tile": 3}, "no parameter tile; it has: .*block"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        make("kcenter", **params)


def test_the_reference_on_disk_is_the_generated_one() -> None:
    """Made by `python -m curate_selectors.registry > docs/methods.md`."""
    assert (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8") == methods_reference()
