"""`vinfo` of a collection in parts: the sums, the fits and the trims of one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from curate.scores.rows import Rows
from curate.scores.summed import Extra, InParts, Over, counted_in, merged, pair_sums, summed
from curate.scoring.labels import LABEL_COLUMNS, REFERENCE_ROWS, LabelModel
from curate.scoring.moments import ClassMoments
from curate.scoring.pairs import PAIR_COLUMNS, RIDGE_ROWS, PairModel, spread
from curate_kernels.arrays import B1, F32

_TILE = 4096


def pair_parts(over: Over, trims: int, enough: int) -> tuple[InParts | None, int]:
    """Return what `pair_information` is in parts, None of fewer pairs than `enough`, and how many pairs there are."""
    sums, masks = merged(over.each(pair_sums))
    moments, pairs = sums.pairs, counted_in(masks)
    if moments is None or pairs < enough:
        return None, pairs
    for trim in range(trims + 1):
        model = PairModel(moments, over.whole.table)
        sample = over.take(masks, spread(np.arange(pairs), RIDGE_ROWS))
        assert sample.text is not None
        model.choose_ridges(*model.project(sample.features(), sample.text))
        if trim == trims:
            break
        total: list[float] = []
        found = over.each(partial(trimmed_sums, model), _seen(masks))
        sums, trimmed = merged(_noted(found, "total", total))
        if not sum(total) > 0 or sums.pairs is None:
            break  # a family that predicts no better than the marginal has nothing to choose by
        masks, moments, pairs = trimmed, sums.pairs, counted_in(trimmed)
    return InParts(partial(pair_columns, model), _seen(masks), (*PAIR_COLUMNS, "pvi")), pairs


def _noted(found: Iterator[dict[str, Any]], name: str, values: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield what each part gave, and append its value `name`."""
    for part in found:
        values.append(part[name])
        yield part


def _seen(masks: Sequence[B1]) -> list[Extra]:
    return [{"seen": mask} for mask in masks]


def trimmed_sums(model: PairModel, rows: Rows, extra: Extra) -> dict[str, Any]:
    """Return the sums of a part's counted pairs that a model finds informative, and the total PVI of all counted."""
    pvi = pair_columns(model, rows, extra)["pvi"]
    image, text, at = rows.pairs()
    counted = at & rows.counted
    seen = counted & (pvi >= 0)
    total = float(pvi[counted].sum(dtype=np.float64))
    return {"seen": seen, "total": total, **summed(image, seen, text=text).arrays()}


def pair_columns(model: PairModel, rows: Rows, extra: Extra) -> dict[str, F32]:
    """Return the pair columns of a part."""
    columns = {name: np.full(rows.n, np.nan, dtype=np.float32) for name in (*PAIR_COLUMNS, "pvi")}
    if rows.text is None:
        return columns
    image, text, at = rows.pairs()
    seen = extra["seen"].astype(np.bool_)
    places = np.flatnonzero(at)
    for low in range(0, places.size, _TILE):
        part = places[low : low + _TILE]
        for name, values in model.score(*model.project(image[part], text[part]), seen[part]).items():
            columns[name][part] = values
    return columns


def label_parts(over: Over, enough: int) -> tuple[InParts | None, int]:
    """Return what `label_information` is in parts, None of fewer rows than `enough`, and how many rows there are."""
    classes: list[int] = []
    sums, masks = merged(_noted(over.each(label_sums), "classes", classes))
    moments, labelled = sums.labels, counted_in(masks)
    if moments is None or labelled < enough:
        return None, labelled
    k, p = max(classes), moments.x.shape[1]  # classes of uncounted rows are classes, too
    moments.merge(ClassMoments(np.zeros(k), np.zeros((k, p)), np.zeros((p, p))))
    model = LabelModel(moments, over.whole.table)
    voters = spread(np.arange(labelled), REFERENCE_ROWS)
    rows = over.take(masks, voters)
    image, label = rows.features(), rows.label
    assert label is not None
    model.refer((image[low : low + _TILE], label[low : low + _TILE]) for low in range(0, voters.size, _TILE))
    extra, before = [], 0
    for mask in masks:  # a voter's place among all voters, by its row in the part
        mine = np.flatnonzero(mask)
        low, high = np.searchsorted(voters, (before, before + mine.size))
        extra.append({"row": mine[voters[low:high] - before], "place": np.arange(low, high, dtype=np.int64)})
        before += mine.size
    return InParts(partial(label_columns, model), extra, LABEL_COLUMNS), labelled


def label_sums(rows: Rows, _: Extra) -> dict[str, Any]:
    """Return the sums of a part's counted labelled rows, and which they are."""
    label = np.full(rows.n, -1, dtype=np.int64) if rows.label is None else rows.label
    at = rows.valid & (label >= 0)
    seen = at & rows.counted
    label = np.where(at, label, -1)
    classes = int(label.max(initial=-1)) + 1
    return {"seen": seen, "classes": classes, **summed(rows.features(), seen, label=label).arrays()}


def label_columns(model: LabelModel, rows: Rows, extra: Extra) -> dict[str, F32]:
    """Return the label columns of a part; a label of a class without counted rows gets NaN."""
    columns = {name: np.full(rows.n, np.nan, dtype=np.float32) for name in LABEL_COLUMNS}
    assert rows.label is not None
    image, label = rows.features(), rows.label
    place = np.full(rows.n, -1, dtype=np.int64)
    place[extra["row"]] = extra["place"]
    at = np.flatnonzero(rows.valid & (label >= 0) & (label < model.count.size))
    known = at[model.count[label[at]] > 0]
    for low in range(0, known.size, _TILE):
        part = known[low : low + _TILE]
        scores = model.score(model.project(image[part]), label[part], rows.counted[part], place[part])
        for name, values in scores.items():
            columns[name][part] = values
    return columns
