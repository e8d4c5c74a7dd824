"""Samplers draw what their formulas say, the same on every rank."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare
from subsets import make_subset, tar_rows, write_rows

from curate.errors import UsageError
from curate.loaders import InfoBatch, Repeats, Subset, TwoPhase, Weighted, iterate

EPOCHS = 200


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows with weights 0, .5, … 5.5 and chances of two phases."""
    folder = tmp_path_factory.mktemp("samplers")
    chance = {"epoch_odd": 0.2, "epoch_even": 0.8}
    rows = [row | chance | {"weight": i / 2} for i, row in enumerate(tar_rows(folder, 12))]
    return write_rows(folder / "m", rows, folder)


def counts(folder: Path, sampler: object, epochs: range = range(EPOCHS)) -> np.ndarray:
    opened = Subset(folder)
    return np.array([sampler.counts(opened, epoch, np.random.default_rng([7, epoch])) for epoch in epochs])


def test_weighted_draws_follow_the_weights(weighted: Path) -> None:
    drawn = counts(weighted, Weighted(draws=50))
    weight = np.arange(12) / 2
    assert (drawn.sum(axis=1) == 50).all()
    assert drawn[:, 0].sum() == 0
    expected = drawn.sum() * weight / weight.sum()
    assert chisquare(drawn.sum(axis=0)[1:], expected[1:]).pvalue > 0.001
    assert chisquare(np.roll(drawn.sum(axis=0)[1:], 1), expected[1:]).pvalue < 1e-6  # the test can fail


def test_repeats_are_whole_and_fractions_by_chance(weighted: Path) -> None:
    drawn = counts(weighted, Repeats())
    weight = np.arange(12) / 2
    assert ((drawn == np.floor(weight)) | (drawn == np.ceil(weight))).all()
    extra = (drawn - np.floor(weight))[:, 1::2]
    assert abs(extra.mean() - 0.5) < 4 * 0.5 / np.sqrt(extra.size)


def test_two_phases_alternate(weighted: Path, tmp_path: Path) -> None:
    drawn = counts(weighted, TwoPhase())
    for phase, chance in ((0, 0.2), (1, 0.8)):
        kept = drawn[phase::2]
        assert abs(kept.mean() - chance) < 4 * 0.4 / np.sqrt(kept.size)
    with pytest.raises(UsageError, match="epoch_odd"):
        next(iterate(make_subset(tmp_path, 6), sampler=TwoPhase()))


def test_infobatch_prunes_what_is_below_the_mean_and_keeps_the_gradient(weighted: Path) -> None:
    opened = Subset(weighted)
    losses = np.arange(12, dtype=np.float32)  # the mean is 5.5
    total = np.zeros(12)
    for seed in range(400):
        sampler = InfoBatch(epochs=8)
        first = sampler.counts(opened, 0, np.random.default_rng(0))
        assert first.tolist() == [1] * 12
        assert sampler.scale().tolist() == [1.0] * 12
        sampler.update(np.arange(12), losses)
        assert (
            sampler.counts(opened, 0, np.random.default_rng(0)).tolist() == [1] * 12
        )  # within an epoch nothing changes
        kept = sampler.counts(opened, 1, np.random.default_rng(seed))
        assert kept[6:].tolist() == [1] * 6
        assert sampler.scale().tolist() == [2.0] * 6 + [1.0] * 6
        total += kept * sampler.scale()
        for epoch, whole in ((6, False), (7, True)):  # 7 = .875 · 8
            assert bool(sampler.counts(opened, epoch, np.random.default_rng(3)).all()) is whole
    np.testing.assert_allclose(total / 400, 1.0, atol=0.2)


def test_infobatch_goes_on_from_its_state_and_judges_only_what_it_knows(weighted: Path) -> None:
    opened = Subset(weighted)
    sampler = InfoBatch(epochs=10, ratio=0.9)
    sampler.counts(opened, 0, np.random.default_rng(0))
    sampler.update([2, 3], [0.1, 3.0])
    other = InfoBatch(epochs=10, ratio=0.9)
    other.load_state_dict(sampler.state_dict())
    for made in (sampler, other):
        kept = made.counts(opened, 1, np.random.default_rng(0))
        assert kept.tolist() == [1, 1, 0, *[1] * 9]
    other.update([2], [5.0])
    again = InfoBatch(epochs=10, ratio=0.9)
    again.load_state_dict(other.state_dict())
    assert again.counts(opened, 1, np.random.default_rng(0)).tolist() == [1, 1, 0, *[1] * 9]
    assert (
        again.counts(opened, 2, np.random.default_rng(0)).tolist()
        == other.counts(opened, 2, np.random.default_rng(0)).tolist()
    )


def test_items_carry_the_scale_of_their_loss(weighted: Path) -> None:
    sampler = InfoBatch(epochs=8)
    for item in iterate(weighted, sampler=sampler, decode="raw"):
        assert item["scale"] == 1.0
        sampler.update([item["row"]], [float(item["row"])])
    scales = {item["row"]: item["scale"] for item in iterate(weighted, sampler=sampler, epoch=1, decode="raw")}
    assert {scale for row, scale in scales.items() if row < 6} == {2.0}
    assert set(range(6, 12)) <= scales.keys()
    assert all(scales[row] == 1.0 for row in range(6, 12))


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    rows = [row | {"weight": -1.0 if i == 2 else 0.0} for i, row in enumerate(tar_rows(tmp_path, 4))]
    folder = write_rows(tmp_path / "m", rows, tmp_path)
    with pytest.raises(UsageError, match="negative"):
        next(iterate(folder, sampler=Weighted()))
    folder = write_rows(tmp_path / "m", [row | {"weight": 0.0} for row in rows], tmp_path)
    with pytest.raises(UsageError, match="nothing can be drawn"):
        next(iterate(folder, sampler=Weighted()))
    with pytest.raises(UsageError, match="ratio"):
        InfoBatch(epochs=3, ratio=1.0)
    with pytest.raises(UsageError, match="once an epoch has begun"):
        InfoBatch(epochs=3).update([0], [1.0])
    sampler = InfoBatch(epochs=3)
    next(iterate(folder, sampler=sampler))
    with pytest.raises(UsageError, match="finite"):
        sampler.update([0], [np.nan])
