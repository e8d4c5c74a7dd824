"""Shares of classes, ends of scores, and the default method, against enumeration and by hand."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curate
from curate_kernels.arrays import unit_rows
from curate_selectors.balance import default
from curate_selectors.balance.default import Default, _duplicates
from curate_selectors.balance.extremes import AnomalyFirst, AnomalyLast, AnyScore, HardNegative
from curate_selectors.balance.water import RareFirst, StratifiedRandom, WaterFill
from curate_selectors.coverage.facility import FacilityLocation
from curate_selectors.errors import SelectorError
from curate_selectors.pairs.windowed import WindowedKCenter, joint
from curate_selectors.types import Candidates


def labelled(labels: list[int], **scores: list[float]) -> Candidates:
    columns = {name: np.float32(values) for name, values in scores.items()}
    return Candidates(n=len(labels), label=np.array(labels, dtype=np.int64), scores=columns)


def shares(data: Candidates, index: np.ndarray) -> dict[int, int]:
    return dict(Counter(data.label[index].tolist()))


def plain_water(sizes: dict[int, int], count: int) -> list[int]:
    """One row to each class in turn while it has any: the remainder is not lost. How many each gives, ascending."""
    given = dict.fromkeys(sizes, 0)
    while sum(given.values()) < count:
        least = min(n for name, n in given.items() if n < sizes[name])
        given[next(name for name, n in given.items() if n == least and n < sizes[name])] += 1
    return sorted(n for n in given.values() if n)


# --- water filling


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.data(), st.integers(0, 5))
def test_water_filling_gives_each_class_equally_many_or_all(labels: list[int], data: st.DataObject, seed: int) -> None:
    """The published coverage code lost what flooring left over, and gave each class the last one's share."""
    candidates = labelled(labels)
    count = data.draw(st.integers(0, len(labels)))
    chosen = WaterFill().select(candidates, count, seed)
    assert sorted(shares(candidates, chosen.index).values()) == plain_water(Counter(labels), count)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.data())
def test_webster_shares_are_the_nearest_to_proportional(labels: list[int], data: st.DataObject) -> None:
    """No class that gave a row claimed it later, at (t + ½) / size, than one that did not give its next."""
    candidates, count = labelled(labels), data.draw(st.integers(0, len(labels)))
    sizes, given = Counter(labels), shares(candidates, StratifiedRandom().select(candidates, count, 0).index)
    last = [(given[c] - 0.5) / sizes[c] for c in given]
    following = [(given.get(c, 0) + 0.5) / sizes[c] for c in sizes if given.get(c, 0) < sizes[c]]
    assert max(last, default=0) <= min(following, default=1)


def test_floors_come_first_and_caps_last() -> None:
    data = labelled([0] * 60 + [1] * 30 + [2] * 6 + [3] * 2)
    proportional = WaterFill(power=1.0)
    assert shares(data, proportional.select(data, 49, 0).index) == {0: 30, 1: 15, 2: 3, 3: 1}
    floors = WaterFill(power=1.0, floor=5)
    assert shares(data, floors.select(data, 17, 0).index) == {0: 5, 1: 5, 2: 5, 3: 2}
    capped = WaterFill(power=1.0, cap=20)
    assert shares(data, capped.select(data, 48, 0).index) == {0: 20, 1: 20, 2: 6, 3: 2}
    assert shares(data, capped.select(data, 60, 0).index) == {0: 26, 1: 26, 2: 6, 3: 2}  # the count is met all the same


def test_rows_of_a_class_are_taken_by_score_where_one_is_named() -> None:
    data = labelled([0, 0, 0, 1, 1], clean=[1, 3, 2, 5, 9])
    chosen = WaterFill(score="clean").select(data, 4, 0)
    assert chosen.index.tolist() == [4, 1, 3, 2]  # the class with the best row first
    assert chosen.gain.tolist() == [9, 3, 5, 2]
    assert (chosen.probability == 1).all()


def test_groups_may_be_balanced_instead_and_rows_of_none_come_last() -> None:
    group = np.array([0, 0, 0, 0, 1, -1, -1], dtype=np.int64)
    data = Candidates(n=7, label=np.zeros(7, dtype=np.int64), group=group)
    index = WaterFill(by="groups").select(data, 7, 0).index
    assert set(group[index[:2]]) == {0, 1}
    assert (group[index[5:]] == -1).all()
    chosen = curate.select(None, method="water-fill", by="groups", groups=["p", "p", "q", None], budget=2)
    assert 2 in chosen.index


@pytest.mark.parametrize("method", [WaterFill(), WaterFill(power=0.5, floor=2), StratifiedRandom(), RareFirst()])
def test_the_probability_is_how_often_a_row_is_drawn(method: WaterFill) -> None:
    data = labelled([0] * 12 + [1] * 5 + [2] * 3)
    taken, told = np.zeros(20), np.zeros(20)
    for seed in range(1500):
        chosen = method.select(data, 9, seed)
        taken[chosen.index] += 1
        told[chosen.index] = chosen.probability
    np.testing.assert_allclose(taken / 1500, told, atol=0.06)


def drawn(method: WaterFill, data: Candidates, count: int, seeds: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """How often each row is taken, how often it was told to be where it was, and the sums of 1 / probability."""
    taken, told, sums = np.zeros(data.n), np.zeros(data.n), []
    for seed in range(seeds):
        chosen = method.select(data, count, seed)
        taken[chosen.index] += 1
        told[chosen.index] = chosen.probability
        sums.append(float((1 / chosen.probability).sum()))
    return taken / seeds, told, sums


@pytest.mark.parametrize("method", [WaterFill(), WaterFill(floor=1), WaterFill(cap=2), StratifiedRandom(), Default()])
def test_fewer_rows_than_classes_are_drawn_among_all_classes(method: WaterFill) -> None:
    """Where the lowest classes went first, half of all rows had no chance, and no weight stood for them."""
    size = [4] * 10 if isinstance(method, StratifiedRandom) else [2, 3, 4, 5, 6, 2, 3, 4, 5, 6]
    data = labelled(np.repeat(np.arange(10), size).tolist(), gain=[1.0] * sum(size))
    x = np.random.default_rng(0).normal(size=(data.n, 6))
    data = replace(data, x=unit_rows(x.astype(np.float32)))
    taken, told, sums = drawn(method, data, 6, 1200)
    np.testing.assert_allclose(taken, told, atol=5 * np.sqrt(0.25 / 1200))
    assert abs(np.mean(sums) - data.n) < 4 * np.std(sums) / np.sqrt(1200) + 1e-3
    taken, told, _ = drawn(method, data, 13, 400)
    np.testing.assert_allclose(taken, told, atol=5 * np.sqrt(0.25 / 400))


def test_classes_of_one_claim_share_it_whatever_their_size() -> None:
    """(0 + ½) / 1 = (1 + ½) / 3."""
    data = labelled([0, 1, 1, 1])
    taken, told, _ = drawn(StratifiedRandom(), data, 2, 800)
    np.testing.assert_allclose(told, [0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(taken, told, atol=0.1)


@pytest.mark.parametrize("settings", [{"power": 1.5}, {"power": -1.0}, {"floor": -1}, {"cap": 2, "floor": 3}])
def test_shares_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(SelectorError, match="are needed"):
        WaterFill(**settings)


def test_a_column_that_is_none_is_refused() -> None:
    with pytest.raises(SelectorError, match="by is 'site'; it must be one of labels, groups"):
        WaterFill(by="site").select(labelled([0, 1]), 1, 0)
    with pytest.raises(SelectorError, match="needs groups"):
        RareFirst(by="groups").select(labelled([0, 1]), 1, 0)


# --- rare first


def test_rare_classes_come_first_whole() -> None:
    labels = [0] * 5 + [1] * 2 + [2] * 3 + [-1] * 1
    data = labelled(labels, clean=list(range(11)))
    chosen = RareFirst(score="clean").select(data, 11, 0)
    assert chosen.index.tolist() == [6, 5, 9, 8, 7, 4, 3, 2, 1, 0, 10]
    np.testing.assert_allclose(chosen.gain[:5], [1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])


# --- ends of scores


def test_the_ends_of_scores_by_hand() -> None:
    data = labelled([0] * 5, anomaly=[1, 5, 3, 5, 0], pvi=[1, 2, 3, 4, 5], negative_margin=[0.1, 0.9, 0.5, 0.7, 0.2])
    assert AnomalyFirst().select(data, 3, 0).index.tolist() == [1, 3, 2]
    assert AnomalyLast().select(data, 3, 0).index.tolist() == [4, 0, 2]
    assert AnyScore().select(data, 2, 0).index.tolist() == [4, 3]
    assert AnyScore("anomaly", lowest=True).select(data, 2, 0).index.tolist() == [4, 0]
    assert HardNegative().select(data, 3, 0).index.tolist() == [1, 3, 2]
    assert HardNegative(aside=0.4).select(data, 5, 0).index.tolist() == [2, 4, 0, 3, 1]
    with pytest.raises(SelectorError, match="aside"):
        HardNegative(aside=1.0)


def planted() -> tuple[np.ndarray, list[str]]:
    """Three tight classes; row 0 carries another's label, row 89 lies far from all."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(3, 8), 30, axis=0) + 0.05 * rng.normal(size=(90, 8))
    x[89] = [0, 0, 0, 0, 0, 0, 0, 1]
    labels = ["abc"[i // 30] for i in range(90)]
    labels[0] = "b"
    return x, labels


def test_scores_that_are_not_given_are_computed() -> None:
    x, labels = planted()
    assert curate.select(x, method="hard-negative", labels=labels, budget=1).index.tolist() == [0]
    assert curate.select(x, method="anomaly-first", labels=labels, budget=1).index.tolist() == [89]
    assert 89 not in curate.select(x, method="anomaly-last", labels=labels, budget=89).index
    chosen = curate.select(x, method="top-score", column="el2n", labels=labels, budget=2)
    assert 0 in chosen.index.tolist()


# --- the default


def test_default_refuses_noise_and_copies_and_balances_classes() -> None:
    rng = np.random.default_rng(1)
    x = unit_rows(rng.normal(size=(120, 16)).astype(np.float32))
    x[100:] = x[:20]
    label = np.repeat([0, 1, 2, 0], [70, 20, 10, 20])
    pvi = rng.uniform(1, 2, 120).astype(np.float32)
    pvi[40:50] = -1
    data = Candidates(n=120, x=x, label=label.astype(np.int64), scores={"pvi_label": pvi})
    index = Default().select(data, 120, 0).index
    first, copies, noise = index[:90], index[90:110], index[110:]
    assert set(copies) == set(range(100, 120))
    assert set(noise) == set(range(40, 50))
    assert Counter(label[first[:30]].tolist()) == {0: 10, 1: 10, 2: 10}
    assert Counter(label[first[:50]].tolist()) == {0: 20, 1: 20, 2: 10}


def test_default_keeps_the_tail_whatever_its_scores_say() -> None:
    """Rare classes are hard to tell, so information about them is often below 0 though nothing is wrong with them."""
    size = [250, 60, 70, 15, 5]
    label = np.repeat(np.arange(5), size)
    rng = np.random.default_rng(0)
    x = unit_rows(rng.normal(size=(400, 8)).astype(np.float32))
    pvi = (np.repeat([3.0, 1.0, -2.0, -3.0, -4.0], size) + rng.normal(size=400)).astype(np.float32)
    index = Default().select(Candidates(n=400, x=x, label=label, scores={"pvi_label": pvi}), 60, 0).index
    taken = np.bincount(label[index], minlength=5)
    assert taken[4] == 5
    assert taken[:4].max() - taken[:4].min() <= 1
    best = np.argsort(-pvi[310:380])[:20] + 310
    assert set(index[label[index] == 2]) <= set(best)


def test_default_does_not_believe_a_score_that_knows_nothing() -> None:
    x = unit_rows(np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    label = np.repeat(np.arange(2), 30)
    told = Candidates(n=60, x=x, label=label, scores={"pvi_label": np.full(60, -0.1, np.float32)})
    plain = Candidates(n=60, x=x, label=label)
    np.testing.assert_array_equal(Default().select(told, 20, 3).index, Default().select(plain, 20, 3).index)


def test_default_compares_with_kept_rows_only() -> None:
    """Each row lies within epsilon of the one before it, so there are chains."""
    angle = np.arange(6) * 0.1
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    index = Default(epsilon=float(1 - np.cos(0.15))).select(Candidates(n=6, x=x), 6, 0).index
    assert set(index[:3]) == {0, 2, 4}


def test_default_finds_every_duplicate() -> None:
    rng = np.random.default_rng(3)
    x = unit_rows(rng.normal(size=(700, 3)).astype(np.float32))
    x[600:650], x[650:670], x[690] = x[:50], x[0], 0
    x[691:] = 0
    plain = np.zeros(700, dtype=bool)
    for late in range(700):
        plain[late] = any(not plain[early] and x[early] @ x[late] >= 1 - 2e-4 for early in range(late))
    assert 200 > plain.sum() > 75
    assert (_duplicates(x, 2e-4) == plain).all()


def test_default_takes_each_kind_of_data_by_its_rule() -> None:
    rng = np.random.default_rng(0)
    x, text = (unit_rows(rng.normal(size=(200, 8)).astype(np.float32)) for _ in range(2))
    pvi = rng.normal(1, 1, 200).astype(np.float32)
    pairs = Candidates(n=200, x=x, text=text, scores={"pvi": pvi})
    expected = WindowedKCenter().select(pairs, 50, 0).index
    np.testing.assert_array_equal(Default().select(pairs, 50, 1).index, expected)
    plain = Candidates(n=200, x=x)
    expected = FacilityLocation().select(plain, 50, 0).index
    np.testing.assert_array_equal(Default().select(plain, 50, 1).index, expected)


def test_default_shares_pairs_among_whole_classes() -> None:
    rng = np.random.default_rng(0)
    x, text = (unit_rows(rng.normal(size=(1100, 8)).astype(np.float32)) for _ in range(2))
    label = np.repeat([0, 1], [1000, 100])
    data = Candidates(n=1100, x=x, text=text, label=label, scores={"pvi": rng.normal(1, 1, 1100).astype(np.float32)})
    chosen = Default(power=1.0).select(data, 110, 0).index
    assert Counter(label[chosen].tolist()) == {0: 100, 1: 10}
    np.testing.assert_array_equal(Default(power=1.0).select(data, 50, 0).index, chosen[:50])


def test_default_ranks_parts_of_many_rows_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "_LARGE", 40)
    x = unit_rows(np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32))
    chosen = Default().select(Candidates(n=100, x=x), 30, 0).index
    assert Counter((np.searchsorted([34, 67], chosen, side="right")).tolist()) == {0: 10, 1: 10, 2: 10}
    first = FacilityLocation().select(Candidates(n=34, x=x[:34]), 10, 0).index
    np.testing.assert_array_equal(chosen[::3], first)


def test_default_tells_how_likely_each_row_was() -> None:
    x = unit_rows(np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32))
    data = Candidates(n=24, x=x, label=np.repeat([0, 1], [16, 8]).astype(np.int64))
    taken, told = np.zeros(24), np.zeros(24)
    for seed in range(1500):
        chosen = Default().select(data, 9, seed)
        taken[chosen.index] += 1
        told[chosen.index] = chosen.probability
    np.testing.assert_allclose(taken / 1500, told, atol=0.05)


# --- k-center in windows


def test_windows_hold_the_best_and_prefixes_hold() -> None:
    rng = np.random.default_rng(0)
    x = unit_rows(rng.normal(size=(400, 8)).astype(np.float32))
    pvi = rng.normal(1, 1, 400).astype(np.float32)
    data, rank = Candidates(n=400, x=x, scores={"pvi": pvi}), np.argsort(-pvi, kind="stable")
    place = np.empty(400, dtype=int)
    place[rank] = np.arange(400)
    full = WindowedKCenter(window=2.0).select(data, 400, 0)
    assert sorted(full.index.tolist()) == list(range(400))
    for count in (1, 16, 17, 40, 120):
        some = WindowedKCenter(window=2.0).select(data, count, 0)
        np.testing.assert_array_equal(some.index, full.index[:count])
        assert place[some.index].max() < np.ceil(2.0 * np.sqrt(2) * max(count, 16))
    sure = int(np.ceil(0.75 * (pvi >= 0).sum()))
    np.testing.assert_array_equal(full.index[sure:], rank[sure:])
    assert (full.gain[sure:] == 0).all()


def test_windowed_picks_are_the_farthest_of_their_window() -> None:
    rng = np.random.default_rng(1)
    x = unit_rows(rng.normal(size=(300, 6)).astype(np.float32))
    pvi = rng.uniform(0, 1, 300).astype(np.float32)
    chosen = WindowedKCenter(window=3.0).select(Candidates(n=300, x=x, scores={"pvi": pvi}), 40, 0)
    rank, serves, at = np.argsort(-pvi, kind="stable"), 16.0, 1
    while at < 40:
        inside = rank[: min(int(np.ceil(3.0 * serves)), 225)]
        for _ in range(at, min(int(serves), 40)):
            near = 1 - (x[inside] @ x[chosen.index[:at]].T).max(axis=1)
            near[np.isin(inside, chosen.index[:at])] = -1
            assert abs(near.max() - chosen.gain[at]) < 1e-6
            assert chosen.index[at] in inside[near >= near.max() - 1e-6]
            at += 1
        serves *= np.sqrt(2)


def test_image_and_caption_count_alike() -> None:
    rng = np.random.default_rng(2)
    x, text = (unit_rows(rng.normal(size=(90, d)).astype(np.float32)) for d in (6, 9))
    both = joint(x, text)
    np.testing.assert_allclose(1 - both @ both.T, ((1 - x @ x.T) + (1 - text @ text.T)) / 2, atol=1e-6)
    data = Candidates(n=90, x=x, text=text, scores={"pvi": rng.normal(size=90).astype(np.float32)})
    alone = WindowedKCenter(view="image").select(data, 30, 0).index
    assert not np.array_equal(alone, WindowedKCenter().select(data, 30, 0).index)
    np.testing.assert_array_equal(alone, WindowedKCenter().select(replace(data, text=None), 30, 0).index)
