"""Scores on plain arrays: `curate.score`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curate.errors import UsageError
from curate.scores.registry import make_score
from curate.scores.rows import Rows, target_rows
from curate_kernels.arrays import B1, F32, I64, as_rows, unit_rows


def score(
    x: Any = None,
    name: str = "vinfo",
    *,
    text: Any = None,
    captions: Sequence[str | None] | None = None,
    labels: Sequence[Any] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    target: Any = None,
    target_labels: Sequence[Any] | None = None,
    shared: bool | None = None,
    **params: Any,
) -> dict[str, F32]:
    """Compute one score of plain arrays: {column: (n,) float32, NaN where a sample lacks what it needs}.

    Args:
        x: (n, d) image embeddings; rows are scaled to norm 1, zero rows count as missing. text: (n, t) of captions.
        name: of `curate.list_scores()`; params are the fields of its dataclass.
        captions, labels, columns: n values each, None where there is none.
        target: (m, d) embeddings of samples like those that are wanted; target_labels: m labels of theirs.
        shared: both embeddings lie in one space; by default if they have the same dimensions.

    Raises:
        UsageError: no such score or parameter, lengths differ, or something that the score needs is missing.
        ValueError: an array has NaN, infinity or the wrong shape.
    """
    labels, target_labels = same_labels(labels, target_labels)
    image = None if x is None else unit_rows(as_rows(x))
    caption = None if text is None else unit_rows(as_rows(text, "text"))
    parts = [image, caption, captions, labels, *(columns or {}).values()]
    lengths = {len(part) for part in parts if part is not None}
    if len(lengths) != 1:
        raise UsageError(f"x, text, captions, labels and columns must have one length; they have {sorted(lengths)}")
    given = [label for group in (labels, target_labels) if group is not None for label in group]
    names = sorted({str(label) for label in given if not _is_missing(label)})
    valid: B1 = np.ones(lengths.pop(), dtype=np.bool_) if image is None else np.asarray(image.any(axis=1))
    if shared is None:
        shared = image is not None and caption is not None and image.shape[1] == caption.shape[1]
    rows = Rows(
        n=valid.size,
        image=image,
        text=caption,
        caption=captions,
        label=None if labels is None else _numbers(labels, names),
        classes=names,
        valid=valid,
        kept=valid,
        counted=valid,
        shared=shared,
        columns=dict(columns or {}),
        target=_target(target, target_labels, names),
    )
    return make_score(name, **params).compute(rows)


def _numbers(labels: Sequence[Any], names: Sequence[str]) -> I64:
    number = {name: i for i, name in enumerate(names)}
    return np.array([-1 if _is_missing(label) else number[str(label)] for label in labels], dtype=np.int64)


Labels = Sequence[Any] | None


def same_labels(labels: Labels, target_labels: Labels) -> tuple[Labels, Labels]:
    """Return both with whole floats as integers: tables make floats of integers where one is missing.

    Raises UsageError where the target has labels, none of which a sample has.
    """
    ours, theirs = _plain(labels), _plain(target_labels)
    if ours is not None and theirs is not None:
        here, there = ({str(label) for label in given if not _is_missing(label)} for given in (ours, theirs))
        if here and there and not here & there:
            raise UsageError(f"no sample has a label of the target's: {min(here)!r}, … here, {min(there)!r}, … there")
    return ours, theirs


def _plain(labels: Labels) -> Labels:
    if labels is None:
        return None
    return [int(v) if isinstance(v, (float, np.floating)) and float(v).is_integer() else v for v in labels]


def _is_missing(label: Any) -> bool:
    return label is None or bool(label != label)  # noqa: PLR0124 (NaN is what tables hold where there is nothing)


def _target(target: Any, labels: Sequence[Any] | None, names: Sequence[str]) -> Rows | None:
    if target is None:
        return None
    wanted = unit_rows(as_rows(target, "target"))
    if labels is not None and len(labels) != wanted.shape[0]:
        raise UsageError(f"target has {wanted.shape[0]} rows and {len(labels)} labels")
    return target_rows(wanted, None if labels is None else _numbers(labels, names))
