"""The candidates of a pool, with what a method needs of them: stored, or computed for this selection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.engine.changes import REVIEWED
from curate.engine.guard import REASON as EVAL_LEAK
from curate.errors import UsageError
from curate.pool import Pool, table_schema
from curate.pool.takedown import MARK as FORGOTTEN
from curate.scores.pools import bound_to, pool_rows
from curate.scores.registry import make_score
from curate.scores.rows import Rows
from curate.scores.table import SCORES
from curate.selection.arrays import codes
from curate.selection.lazy import of_pool
from curate.selection.needs import fill, named, needs_of, score_name, score_of
from curate.selection.on_ray import RayRows
from curate_kernels.arrays import B1, F32, I64
from curate_selectors.registry import entry, make
from curate_selectors.types import Candidates

_GAINS = ("gain", "gain_arrival")  # a row that the online rule did not measure gained nothing
# No training on a test, nor on what was taken down, or dropped by a reviewer.
_NEVER = (EVAL_LEAK, FORGOTTEN, REVIEWED)
_MOST = 0.5  # of the memory limit: embeddings that take less are read whole
_FIELDS = ("embeddings", "text", "captions", "labels", "groups", "target")


class PoolCandidates:
    """The candidates of a pool, by uid, with what a method may need of them."""

    def __init__(
        self, pool: Pool, candidates: str, target: str | Path | None, view: str = "image", ray: Any = None
    ) -> None:
        dropped = " AND (review IS NULL OR review <> 'drop')" if "review" in pool.columns else ""
        every = f"embedded AND reason NOT IN {_NEVER}{dropped}"
        where = {"admitted": "decision = 'admit'", "all": every}.get(candidates)
        if where is None:
            raise UsageError(f"candidates are {candidates!r}; they must be 'admitted' or 'all'")
        if bound_to(pool.state(), view) and view != "image":
            where += f" AND {view} IS NOT NULL"
        self.pool, self.where, self.target, self.view = pool, where, target, view
        self._ray = ray
        names = [c for c in pool.columns if c not in (*pool.vectors, "history", "meta", "detail")]
        table = pool.frame(names, where=where)
        if not table.height:
            held = pool.dataset.count_rows(filter="decision = 'hold'")
            waiting = f"; {held:,} are held back: `curate grow` without --follow ends their warm-up" if held else ""
            raise UsageError(f"the pool at {pool.path} has no {candidates} rows to choose from{waiting}")
        self.order = table["uid"].arg_sort().to_numpy().astype(np.int64)  # ties go to the lowest uid
        self.table = table[self.order]

    def column(self, name: str) -> Sequence[Any]:
        """Return a column of the pool, or a field of the rows' metadata. Raises UsageError where there is neither."""
        if name in self.table.columns:
            return self.table[name].to_list()
        meta = self.pool.frame(["meta"], where=self.where)["meta"][self.order].to_list()
        records = [json.loads(text) if text else {} for text in meta]
        if not any(name in record for record in records):
            known = sorted({*self.table.columns, *(key for record in records for key in record)})
            raise UsageError(f"no candidate has a column or metadata field {name!r}; there are: {', '.join(known)}")
        return [record.get(name) for record in records]

    def places(self, names: Sequence[str], must: bool) -> list[int]:
        """Return the places of the candidates with these uids, SOURCE:KEYs or keys; must: each has to be there.

        Raises UsageError for a name that several candidates have, or, if it must, none has.
        """
        if not len(names):
            return []
        known: dict[str, list[int]] = {}
        rows = self.table.select("uid", "source", "key").iter_rows()
        for place, (uid, source, key) in enumerate(rows):
            for name in {uid, f"{source}:{key}", key}:
                known.setdefault(name, []).append(place)
        found = []
        for name in dict.fromkeys(names):
            places = known.get(name, [])
            if len(places) > 1:
                raise UsageError(f"{len(places)} candidates have the key {name!r}; name one by SOURCE:KEY or uid")
            if must and not places:
                raise UsageError(f"{name!r} must be kept and is no candidate; `curate why POOL {name}` tells more")
            found += places
        return found

    def filled(self, method: str, params: dict[str, Any]) -> tuple[Candidates, B1]:
        """Return the candidates with what a method needs, and which of them lack a score that it needs."""
        aim = pool_rows(self.pool, set(), self.target, self.view).target if self.target is not None else None
        scores: dict[str, F32] = {}

        def at_hand(word: str) -> bool:
            if word in _FIELDS:
                return self._has(word)
            return score_name(word) in scores or self._read(score_name(word), scores)

        def compute(word: str) -> None:
            scores.update(self._computed(score_name(word)))

        words, able = fill(method, needs_of(method, params), at_hand, compute)
        lacking = np.zeros(self.table.height, dtype=np.bool_)
        for word in words - set(_FIELDS):
            lacking |= ~np.isfinite(scores[score_name(word)])
        names = {name: i for i, name in enumerate(self.pool.state()["classes"])}
        data = Candidates(
            n=self.table.height,
            x=self._unit(self.view, entry(method).tiled_as(make(method, **params))) if "embeddings" in words else None,
            text=self._unit("text") if "text" in words | able else None,
            target=None if aim is None else aim.image,
            target_label=None if aim is None else aim.label,
            label=codes(self.table["label"].to_list(), names),
            group=codes(self.table["group"].to_list()),
            captions=self.table["caption"].to_list() if "captions" in words else None,
            scores=scores,
        )
        return data, lacking

    def _has(self, word: str) -> bool:
        if word in ("embeddings", "target"):
            return word == "embeddings" or self.target is not None
        if word == "text" and "text" not in self.pool.columns:
            return False
        column = {"text": "caption", "captions": "caption", "labels": "label", "groups": "group"}[word]
        return self.table[column].null_count() < self.table.height

    def _unit(self, view: Any, tiled: bool = False) -> Any:
        """Return the unit rows of a view; unread where tiles will do, and they take most of limits.memory_gb."""
        if self._ray is not None:
            return RayRows(self._ray, self.pool, view, self._places())
        d = self.pool.dataset.schema.field(view).type.list_size
        if tiled and 4e-9 * self.table.height * d > _MOST * self.pool.state()["recipe"]["limits"]["memory_gb"]:
            return of_pool(self.pool, view, self._places())
        x = self.pool.embeddings(view, where=self.where, order=self.order)
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        x /= np.where(norm > 0, norm, 1)  # float16 left them 1e-4 off
        return x

    def _places(self) -> I64:
        """Return where the candidates lie among the rows of the pool."""
        arrived = self.pool.frame(["row"])["row"].to_numpy()
        return np.searchsorted(arrived, self.table["row"].to_numpy())

    def _read(self, name: str, scores: dict[str, F32]) -> bool:
        """Add a stored column to `scores`, unless the pool has none, or not of every candidate: it has grown since."""
        if name not in self.table.columns or not self.table[name].dtype.is_numeric():
            return False
        missing = self.table[name].null_count()
        owned = name in table_schema(1).names
        if missing == self.table.height or (missing and not owned) or (self.target is not None and _of_target(name)):
            return False
        for column in _GAINS if name in _GAINS else (name,):
            values = self.table[column].cast(pl.Float32)
            filled = values.fill_null(0.0) if column in _GAINS else values.fill_null(float("nan"))
            scores[column] = filled.to_numpy().astype(np.float32)
        return True

    def _computed(self, name: str) -> dict[str, F32]:
        score = score_of(name)
        needs = {word for need in SCORES[score].needs for word in need.split(" or ")}
        rows: Rows = pool_rows(self.pool, needs, self.target)
        uid = self.pool.frame(["uid"])["uid"]
        arrived = uid.arg_sort().to_numpy()
        here = arrived[np.searchsorted(uid.to_numpy()[arrived], self.table["uid"].to_numpy())]
        return {column: values[here] for column, values in named(name, make_score(score).compute(rows)).items()}


def _of_target(name: str) -> bool:
    """Tell whether a column was measured against a target set, which need not be the one given now."""
    try:
        return any("target" in need for need in SCORES[score_of(name)].needs) or name == "positive_distance"
    except UsageError:
        return False
