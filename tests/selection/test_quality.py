"""Methods by density and quality: what they even out, resemble and balance, and how likely each row was."""

import re

import numpy as np
import pytest

import curate
from curate_kernels.arrays import unit_rows
from curate_selectors.errors import SelectorError
from curate_selectors.quality.ask import Ask
from curate_selectors.quality.density import Density
from curate_selectors.quality.dsir import Dsir
from curate_selectors.quality.metaclip import MetaClip, matches
from curate_selectors.types import Candidates


def clusters(sizes: list[int], d: int = 32, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Rows in random order around as many centres, and the cluster of each."""
    rng = np.random.default_rng(5)
    label = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centre = unit_rows(rng.normal(size=(len(sizes), d)).astype(np.float32))[label]
    return unit_rows((centre + noise / np.sqrt(d) * rng.normal(size=centre.shape)).astype(np.float32)), label


def scored(**columns: object) -> Candidates:
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}
    return Candidates(n=len(next(iter(arrays.values()))), scores=arrays)


# --- density


def test_density_prefers_the_rare_and_not_the_common() -> None:
    """The printed algorithm 2 of the paper, p in proportion to the density, would take 99 % of the two largest."""
    sizes = [6000, 2500, 1000, 350, 125, 25]
    x, label = clusters(sizes)
    share = np.bincount(label[Density(hashes=200).select(Candidates(n=10_000, x=x), 1000, 0).index], minlength=6) / 1000
    uniform = np.array(sizes) / 10_000
    assert share[0] < 0.6 * uniform[0]
    assert (share[2:] > 1.5 * uniform[2:]).all()


def test_density_from_embeddings_is_the_score_of_that_name() -> None:
    x, _ = clusters([300, 60])
    by_score = Density().select(scored(density=curate.score(x, "density")["density"]), 50, 3)
    by_rows = Density().select(Candidates(n=360, x=x), 50, 3)
    assert by_rows.index.tolist() == by_score.index.tolist()
    np.testing.assert_allclose(by_rows.gain, by_score.gain, rtol=1e-4)


def test_density_draws_in_inverse_proportion_and_tells_the_chance() -> None:
    """Of n = 11 rows the mass is 10 density + 1, the row itself included: 1, 2, …, 11."""
    data = scored(density=np.arange(11) / 10)
    first, taken, told = np.zeros(11), np.zeros(11), np.zeros(11)
    for seed in range(1500):
        chosen = Density().select(data, 4, seed)
        first[chosen.index[0]] += 1
        taken[chosen.index] += 1
        told[chosen.index] = chosen.probability
    weight = 1 / np.arange(1, 12)
    np.testing.assert_allclose(first / 1500, weight / weight.sum(), atol=0.05)
    np.testing.assert_allclose(told, taken / 1500, atol=0.06)
    assert told.sum() == pytest.approx(4, abs=1e-3)


def test_rows_of_no_density_are_likely_and_not_certain() -> None:
    chosen = Density().select(scored(density=np.zeros(10)), 3, 0)
    np.testing.assert_allclose(chosen.probability, 0.3, atol=1e-6)


# --- ask


def test_ask_takes_the_highest_ties_to_the_lowest_row() -> None:
    data = scored(ask=[0.5, 0.9, 0.5, 0.1, 0.9])
    chosen = Ask().select(data, 4, 0)
    assert chosen.index.tolist() == [1, 4, 0, 2]
    np.testing.assert_allclose(chosen.gain, [0.9, 0.9, 0.5, 0.5])
    assert Ask(lowest=True).select(data, 3, 0).index.tolist() == [3, 0, 2]


def test_ask_by_another_column() -> None:
    assert Ask("head_value").select(scored(head_value=[1, 3, 2]), 1, 0).index.tolist() == [1]


@pytest.mark.parametrize("bad", [[0.1, np.nan, 0.2], [0.1, np.inf, 0.2]])
def test_a_score_that_is_no_number_is_refused(bad: list[float]) -> None:
    with pytest.raises(SelectorError, match="3 finite numbers"):
        Ask().select(scored(ask=bad), 1, 0)


def test_a_score_that_is_missing_is_named() -> None:
    with pytest.raises(SelectorError, match="needs the score 'ask'"):
        Ask().select(Candidates(n=3), 1, 0)


# --- dsir


def test_importance_is_resampled_in_proportion_to_its_exponential() -> None:
    weight = np.array([1.0, 2, 3, 4])
    data = scored(importance=np.log(weight))
    first = [Dsir().select(data, 1, seed).index[0] for seed in range(1500)]
    np.testing.assert_allclose(np.bincount(first, minlength=4) / 1500, weight / 10, atol=0.05)


def test_what_is_drawn_is_distributed_as_the_target() -> None:
    """Clusters of 70, 25 and 5 %; the target has 10, 10 and 80 %."""
    x, label = clusters([2800, 1000, 200])
    aim = np.concatenate([np.flatnonzero(label == c)[:n] for c, n in ((0, 10), (1, 10), (2, 80))])
    data = Candidates(n=4000, x=x, target=x[aim])
    index = np.concatenate([Dsir(hashes=100).select(data, 20, seed).index for seed in range(20)])
    # The kernel of the sketches reaches into the other clusters, which softens the ratio.
    np.testing.assert_allclose(np.bincount(label[index], minlength=3) / 400, [0.1, 0.1, 0.8], atol=0.12)


def test_importance_from_embeddings_is_the_score_of_that_name() -> None:
    x, label = clusters([300, 60])
    target = x[label == 1][:20]
    by_score = Dsir().select(scored(importance=curate.score(x, "importance", target=target)["importance"]), 40, 3)
    by_rows = Dsir().select(Candidates(n=360, x=x, target=target), 40, 3)
    assert by_rows.index.tolist() == by_score.index.tolist()
    np.testing.assert_allclose(by_rows.gain, by_score.gain, atol=1e-5)


def test_dsir_without_a_target_says_what_it_needs() -> None:
    with pytest.raises(SelectorError, match="'importance', or a target set"):
        Dsir().select(Candidates(n=4, x=np.eye(4, dtype=np.float32)), 1, 0)


# --- metaclip


CAPTIONS = ["A dog.", "a cat and a DOG", "red-dog house", "catalogue", None, "hot dog, hot", "the cat"]


def test_entries_match_as_whole_words_whatever_their_case() -> None:
    entries = ["dog", "Cat", "hot dog", "house cat"]
    row, entry = matches(CAPTIONS, entries)
    plain = [
        (i, e)
        for i, caption in enumerate(CAPTIONS)
        for e, text in enumerate(entries)
        if re.search(rf"\b{text.lower()}\b", (caption or "").lower())
    ]
    assert sorted(zip(row.tolist(), entry.tolist(), strict=True)) == plain


def test_without_entries_words_of_two_captions_are_the_entries() -> None:
    row, entry = matches(CAPTIONS)  # a, dog, cat
    assert sorted(zip(row.tolist(), entry.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (5, 1), (6, 2)
    ]  # fmt: skip


def balanced() -> Candidates:
    """300 dogs, 60 cats, 6 of them both, 4 newts, and 30 of nothing that is known."""
    captions = ["dog"] * 294 + ["dog cat"] * 6 + ["cat"] * 54 + ["newt"] * 4 + ["?"] * 30
    return Candidates(n=len(captions), captions=captions)


def test_a_common_entry_is_capped_and_a_rare_one_kept() -> None:
    chosen = MetaClip(("dog", "cat", "newt"), cap=40).select(balanced(), 80, 0)
    kept = np.bincount(np.searchsorted([294, 300, 354, 358], chosen.index, side="right"), minlength=5)
    assert kept[3] == 4  # certain
    assert kept[4] == 0
    assert 25 <= kept[0] <= 53
    assert 24 <= kept[2] <= 48


def test_a_row_passes_if_any_entry_lets_it() -> None:
    """A share of 40/300, 40/60, or both: 1 - (1 - 2/15)(1 - 2/3)."""
    data = balanced()
    both = MetaClip(("dog", "cat", "newt"), cap=40).select(data, 358, 0)
    told = dict(zip(both.index.tolist(), both.gain.tolist(), strict=True))
    assert told[0] == pytest.approx(2 / 15, rel=1e-5)
    assert told[294] == pytest.approx(1 - 13 / 15 / 3, rel=1e-5)
    assert told[300] == pytest.approx(2 / 3, rel=1e-5)
    assert told[354] == pytest.approx(1)


def test_the_cap_is_found_for_the_budget_and_chances_hold() -> None:
    data, taken, told = balanced(), np.zeros(388), np.zeros(388)
    for seed in range(200):
        chosen = MetaClip(("dog", "cat", "newt")).select(data, 100, seed)
        taken[chosen.index] += 1 / 200
        told[chosen.index] = chosen.probability
        np.testing.assert_allclose(chosen.probability, chosen.gain, atol=1e-3)
    groups = np.searchsorted([294, 300, 354, 358], np.arange(388), side="right")
    for group in range(4):
        assert told[groups == group].mean() == pytest.approx(taken[groups == group].mean(), abs=0.025)


def test_rows_that_match_nothing_come_last_in_order() -> None:
    chosen = MetaClip(("dog", "cat", "newt")).select(balanced(), 370, 0)
    assert chosen.index[358:].tolist() == list(range(358, 370))


def test_a_list_of_entries_that_is_one_text_is_refused() -> None:
    with pytest.raises(SelectorError, match="list of texts"):
        MetaClip("dog")
