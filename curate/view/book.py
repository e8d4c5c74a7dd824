"""A pool as the page reads it: a few numbers of every row in memory, everything else by the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.engine.explain import why
from curate.errors import UsageError
from curate.pool import Pool, vectors
from curate_kernels.arrays import B1, F32, I64
from curate_kernels.topk import push_topk

_SHOWN = ("row", "uid", "source", "key", "decision", "reason", "caption", "label", "width", "height", "embedded")
_MOST_LABELS, _MOST_VERSIONS = 1000, 200
_NEAREST = 60
_SAMPLE = 24
GATES = {"pvi": ("caption_mismatch", 1.0), "s1_label": ("label_noise", -1.0)}
"""Scores that a gate reads: the reason of what it refuses, and 1 where low scores are refused, -1 where high ones."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows to show: equal to each of these where it is not "", a score between two bounds, in an order.

    text: words that key or caption hold; since: a version, 0 for none, after which the row came
    sort: a score, "" for the order of arrival; a leading "-" turns it round
    """

    decision: str = ""
    reason: str = ""
    label: str = ""
    text: str = ""
    score: str = ""
    low: float = -np.inf
    high: float = np.inf
    since: int = 0
    sort: str = ""


class Book:
    """A pool at one version. Memory: some bytes a row for each score and for decision, reason and label."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.state = pool.state()
        schema = pool.dataset.schema
        names = [f.name for f in schema if str(f.type) == "float" and not f.name.endswith("_arrival")]
        self.score_names = sorted(names, key=lambda name: (name not in GATES, name != "gain"))
        table = pool.frame(["decision", "reason", "label", *self.score_names])
        self.n = table.height
        self._names: dict[str, list[str]] = {}
        self._codes: dict[str, I64] = {}
        for name in ("decision", "reason", "label"):
            values = table[name].fill_null("")
            self._names[name] = sorted(values.unique().to_list())
            place = {text: i for i, text in enumerate(self._names[name])}
            self._codes[name] = values.replace_strict(place, return_dtype=None).to_numpy().astype(np.int64)
        self._scores: dict[str, F32] = {
            name: table[name].fill_null(float("nan")).to_numpy().astype(np.float32) for name in self.score_names
        }

    def outline(self) -> dict[str, Any]:
        """Return what the page needs first: counts, names, thresholds and spans of scores, versions."""
        thresholds = self.thresholds()
        spans = {}
        for name, values in self._scores.items():
            known = values[np.isfinite(values)]
            if known.size:
                low, high = np.quantile(known, (0.001, 0.999))
                spans[name] = {"low": float(low), "high": float(high), "threshold": thresholds.get(name)}
        labels, past = self.counts("label"), self.pool.versions()[:-1]
        return {
            "pool": str(self.pool.path),
            "version": self.pool.version,
            "rows": self.n,
            "decisions": self.counts("decision"),
            "reasons": self.counts("reason"),
            "labels": dict(list(labels.items())[:_MOST_LABELS]),
            "scores": spans,
            "versions": [(entry["version"], entry["timestamp"][:16]) for entry in past[: -_MOST_VERSIONS - 1 : -1]],
        }

    def counts(self, name: str) -> dict[str, int]:
        """Return {value: rows} of decision, reason or label, most frequent first."""
        numbers = np.bincount(self._codes[name], minlength=len(self._names[name]))
        found = [(text, int(count)) for text, count in zip(self._names[name], numbers, strict=True) if text and count]
        return dict(sorted(found, key=lambda item: (-item[1], item[0])))

    def thresholds(self) -> dict[str, float]:
        """Return the gates' thresholds in force: of captions, and the median of those of labels."""
        last = self.state["checkpoint"] or {}
        found: dict[str, float] = {}
        if last.get("caption"):
            found["pvi"] = float(last["caption"]["value"])
        if last.get("classes"):
            found["s1_label"] = float(np.median([-value["value"] for value in last["classes"].values()]))
        return found

    def find(self, asked: Asked) -> I64:
        """Return the ordinals of the rows that are asked for, in order. Raises UsageError for an unknown name."""
        inside = np.ones(self.n, dtype=np.bool_)
        for name in ("decision", "reason", "label"):
            if value := getattr(asked, name):
                inside &= self._equal(name, value)
        if asked.score:
            values = self._score(asked.score)
            with np.errstate(invalid="ignore"):
                inside &= (values >= asked.low) & (values <= asked.high)
        if asked.since:
            known = Pool.open(self.pool.path, max(asked.since, 1)).frame(["uid"])["uid"]
            inside &= ~self.pool.frame(["uid"])["uid"].is_in(known.implode()).to_numpy()
        if asked.text.strip():
            inside &= self._holds(asked.text)
        rows = np.flatnonzero(inside)
        if asked.sort:
            values = self._score(asked.sort.removeprefix("-"))[rows]
            keys = np.where(np.isfinite(values), -values if asked.sort.startswith("-") else values, np.inf)
            rows = rows[np.argsort(keys, kind="stable")]
        return rows

    def rows(self, ordinals: I64) -> list[dict[str, Any]]:
        """Return what the page shows of rows, in this order."""
        names = [*_SHOWN, *(["review"] if "review" in self.pool.columns else []), *self.score_names]
        found: list[dict[str, Any]] = self.pool.take(ordinals.tolist(), names).to_pylist()
        for row in found:
            scores = {name: row.pop(name) for name in self.score_names}
            row["scores"] = {name: value for name, value in scores.items() if value is not None and np.isfinite(value)}
        return found

    def details(self, uid: str) -> dict[str, Any]:
        """Return everything that was decided about one row."""
        return why(self.pool, uid)

    def nearest(self, vector: F32, view: str = "image") -> tuple[I64, F32]:
        """Return the ordinals of the rows nearest to a unit vector (d,), most similar first, and their cosines."""
        dim = self.pool.dataset.schema.field(view).type.list_size
        best, found = np.full((1, _NEAREST), -np.inf, dtype=np.float32), np.full((1, _NEAREST), -1, dtype=np.int64)
        start = 0
        for batch in self.pool.scan([view], size=8192):
            rows = vectors(batch.column(0), dim)
            there: B1 = np.asarray(rows.any(axis=1))
            push_topk((rows @ vector)[None, :], there, start, best, found)
            start += rows.shape[0]
        known = found[0] >= 0
        return found[0][known], best[0][known]

    def vector(self, row: int) -> F32:
        """Return a row's image embedding (d,)."""
        table = self.pool.take([row], ["image"])
        unit: F32 = vectors(table.column(0), table.schema.field("image").type.list_size)[0]
        return unit

    def slide(self, score: str, threshold: float, label: str = "") -> dict[str, Any]:
        """Return what another threshold of a score would change: counts, and the rows nearest to it on either side.

        Low scores are bad, but for `s1_label`; of a gate's score those that it refused come back beyond the threshold.
        """
        reason, sign = GATES.get(score, ("", 1.0))
        values = sign * self._score(score)
        inside = np.isfinite(values) & (self._equal("label", label) if label else True)
        limit = sign * threshold
        out = np.flatnonzero(inside & self._equal("decision", "admit") & (values < limit))
        back = np.flatnonzero(inside & self._equal("reason", reason) & (values >= limit)) if reason else out[:0]
        near = [rows[np.argsort(np.abs(values[rows] - limit), kind="stable")[:_SAMPLE]] for rows in (out, back)]
        return {"out": int(out.size), "back": int(back.size), "rows": np.concatenate(near), "all_out": out}

    def _score(self, name: str) -> F32:
        if name not in self._scores:
            raise UsageError(f"this pool has no score {name!r}; it has: {', '.join(self._scores) or 'none'}")
        return self._scores[name]

    def _equal(self, name: str, value: str) -> B1:
        known = self._names[name]
        equal: B1 = self._codes[name] == (known.index(value) if value in known else -1)
        return equal

    def _holds(self, text: str) -> B1:
        """Return the rows whose key or caption holds every word, (n,) bool; letters of either case."""
        inside = np.ones(self.n, dtype=np.bool_)
        for word in text.lower().split():
            quoted = word.replace("'", "''")
            where = f"strpos(lower(key), '{quoted}') > 0 OR strpos(lower(caption), '{quoted}') > 0"
            found = np.zeros(self.n, dtype=np.bool_)
            found[self.pool.frame(["row"], where=where)["row"].to_numpy()] = True
            inside &= found
        return inside


def asked_of(query: Mapping[str, str]) -> Asked:
    """Return what the parameters of a request ask for. Raises UsageError where a bound is no number."""
    names = ("decision", "reason", "label", "text", "score", "sort")
    given: dict[str, Any] = {name: query.get(name, "") for name in names}
    for name in ("low", "high"):
        if query.get(name):
            given[name] = number(query, name)
    if query.get("since"):
        given["since"] = int(number(query, "since"))
    return Asked(**given)


def number(query: Mapping[str, str], name: str) -> float:
    """Return a parameter of a request as a finite number. Raises UsageError where it is none."""
    try:
        value = float(query.get(name, ""))
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise UsageError(f"{name} is {json.dumps(query.get(name, ''))}; a number is needed")
    return value
