"""Corruptions do what their truth says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from curate.benchmark.corrupt import Facts, Plan, apply, clean_plan, nearest_class
from curate.benchmark.definition import Set, Step
from curate.benchmark.pixels import altered
from curate.benchmark.sets import synthetic
from curate.benchmark.world import split
from curate.errors import UsageError

BASE = synthetic(Set(kind="synthetic", rows=400, classes=4, dims=8), 0)


def facts(pixels: bool = False) -> Facts:
    return Facts(BASE.x, BASE.label, {"time": [-i for i in range(400)]}, np.arange(300, 400), pixels, captions=True)


def made(pixels: bool = False, **step: object) -> Plan:
    plan = clean_plan(np.arange(300), BASE.label)
    return apply(plan, Step(**step), facts(pixels), np.random.default_rng(1))  # type: ignore[arg-type]


def test_flipped_labels_are_wrong_and_no_others() -> None:
    plan = made(kind="label-flip", share=0.2)
    assert plan.truth["flipped"].sum() == 60
    np.testing.assert_array_equal(plan.truth["flipped"], plan.label != BASE.label[plan.origin])


def test_uniform_flips_go_to_every_other_class() -> None:
    plan = made(kind="label-flip", share=0.9)
    flipped = plan.truth["flipped"] & (BASE.label[plan.origin] == 0)
    counts = np.bincount(plan.label[flipped], minlength=4)
    assert counts[0] == 0
    assert counts[1:].min() > 0.2 * flipped.sum()


def test_class_dependent_flips_go_to_the_class_that_looks_most_alike() -> None:
    plan = made(kind="label-flip", share=0.2, how="class")
    means = np.array([BASE.x[BASE.label == k].mean(axis=0) for k in range(4)], dtype=np.float64)
    means -= means.mean(axis=0)
    alike = [[np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for b in means] for a in means]
    for k in range(4):
        other = max((j for j in range(4) if j != k), key=lambda j: alike[k][j])
        assert nearest_class(facts())[k] == other
        own = plan.truth["flipped"] & (BASE.label[plan.origin] == k)
        assert set(plan.label[own].tolist()) == {other}


def test_shuffled_captions_are_other_images_captions_and_none_is_lost() -> None:
    plan = made(kind="caption-shuffle", share=0.4)
    np.testing.assert_array_equal(plan.truth["shuffled"], plan.caption != plan.origin)
    assert plan.truth["shuffled"].sum() == 120
    assert sorted(plan.caption.tolist()) == sorted(plan.origin.tolist())


@pytest.mark.parametrize("kind", ["duplicate", "near-duplicate"])
def test_copies_are_marked_and_their_originals_are_there(kind: str) -> None:
    plan = made(kind=kind, share=0.25)
    copy = plan.truth[kind]
    assert (plan.n, copy.sum()) == (375, 75)
    assert sorted(plan.origin[~copy].tolist()) == list(range(300))
    assert set(plan.change[~copy]) == {""}
    assert all(bool(change) == (kind == "near-duplicate") for change in plan.change[copy])
    assert not plan.bad().any()
    assert 100 < np.flatnonzero(copy).mean() < 275  # among the others, not at their end


def test_near_duplicates_of_images_take_turns() -> None:
    plan = made(pixels=True, kind="near-duplicate", share=0.2)
    assert set(plan.change[plan.truth["near-duplicate"]]) == {"jpeg:60", "resize:0.5", "crop:0.9", "flip"}
    plan = made(pixels=True, kind="near-duplicate", share=0.2, how="flip")
    assert set(plan.change[plan.truth["near-duplicate"]]) == {"flip"}


@pytest.mark.parametrize(("kind", "truth"), [("blank", "blank"), ("blur", "blurred")])
def test_spoilt_images_are_bad(kind: str, truth: str) -> None:
    plan = made(pixels=True, kind=kind, share=0.1)
    np.testing.assert_array_equal(plan.truth[truth], plan.change != "")
    np.testing.assert_array_equal(plan.bad(), plan.truth[truth])
    assert plan.bad().sum() == 30


def test_the_tail_is_thinned_by_rank() -> None:
    plan = made(kind="long-tail", ratio=0.1)
    before, after = (np.bincount(label, minlength=4) for label in (BASE.label[:300], plan.label))
    order = np.argsort(-before, kind="stable")
    most = [round(before[order[0]] * 0.1 ** (rank / 3)) for rank in range(4)]
    assert after[order].tolist() == [min(most[r], before[order[r]]) for r in range(4)]
    np.testing.assert_array_equal(plan.truth["tail"], plan.label == order[3])


def test_order_moves_rows_and_changes_nothing() -> None:
    by_class, by_time = made(kind="order"), made(kind="order", by="time")
    assert (np.diff(by_class.label) >= 0).all()
    assert by_time.origin.tolist() == list(range(299, -1, -1))
    assert sorted(by_class.origin.tolist()) == list(range(300))
    with pytest.raises(UsageError, match="columns are: time"):
        made(kind="order", by="date")


def test_leaks_show_held_out_images() -> None:
    plan = made(kind="leaks", share=0.1)
    np.testing.assert_array_equal(plan.truth["leak"], plan.origin >= 300)
    assert plan.truth["leak"].sum() == 30
    np.testing.assert_array_equal(plan.label, BASE.label[plan.origin])


def test_outliers_replace_images() -> None:
    plan = made(kind="outliers", share=0.1)
    np.testing.assert_array_equal(plan.truth["outlier"], [str(c).startswith("outlier") for c in plan.change])
    with pytest.raises(UsageError, match="outliers"):
        made(pixels=True, kind="outliers")


def test_faults_fall_on_good_rows_and_copies_inherit_them() -> None:
    rng, plan = np.random.default_rng(0), clean_plan(np.arange(300), BASE.label)
    for kind in ("label-flip", "caption-shuffle", "near-duplicate", "leaks"):
        plan = apply(plan, Step(kind=kind, share=0.2), facts(), rng)
    own = {name: mask for name, mask in plan.truth.items() if name != "near-duplicate"}
    assert max(np.sum(list(own.values()), axis=0)) == 1
    np.testing.assert_array_equal(plan.truth["flipped"], plan.label != BASE.label[plan.origin])
    np.testing.assert_array_equal(plan.truth["shuffled"], plan.caption != plan.origin)


def test_pixel_changes_do_what_they_are_called() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(altered(image, "flip"), image[:, ::-1])
    assert altered(image, "resize:0.5").shape == (20, 30, 3)
    assert altered(image, "crop:0.9").shape == (36, 54, 3)
    np.testing.assert_array_equal(altered(image, "crop:0.5"), image[10:30, 15:45])
    assert altered(image, "jpeg:60").shape == image.shape
    assert (altered(image, "jpeg:60") != image).any()
    assert altered(image, "blur:6").std() < image.std() / 3
    assert altered(image, "blank").std() == 0
    np.testing.assert_array_equal(altered(image, "flip|crop:0.5"), image[:, ::-1][10:30, 15:45])


def test_a_split_holds_out_whole_groups_and_at_least_the_share() -> None:
    group = np.repeat(np.arange(40), 5)
    train, test = split(group, 0.25, np.random.default_rng(0))
    assert not set(group[train]) & set(group[test])
    assert sorted([*train, *test]) == list(range(200))
    assert test.size == 50
