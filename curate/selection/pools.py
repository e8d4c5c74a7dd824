"""`curate select`: a subset of a pool, written as a manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.budgets import Budget, parse_budget
from curate.distributed.cluster import connected
from curate.errors import UsageError
from curate.files import digest
from curate.manifest import COLUMNS, write_manifest
from curate.pool import VIEWS, Pool
from curate.remote import place
from curate.selection.arrays import select_among
from curate.selection.candidates import PoolCandidates
from curate.selection.constraints import Constraints
from curate.selection.epochs import two_phase
from curate.selection.on_ray import check_spread
from curate.selection.patches import choose_crops, tiles_of
from curate_kernels.arrays import B1, F32, I64
from curate_selectors.information.patches import OptiDelPatches
from curate_selectors.registry import entry, make, parameters
from curate_selectors.types import Selection

_LOG = logging.getLogger("curate")

_ROWS = 262_144  # gathered at a time
_SCORES = ("gain_image", "gain_text", "pvi", "pvi_text", "pvi_image", "s0_label", "s1_label", "pvi_label")


@dataclass(frozen=True, slots=True)
class Selected:
    """What one selection from a pool gave.

    selected: rows of the manifest; bytes: stored bytes of their images; nested: each prefix is a selection
    """

    manifest: str
    method: str
    selected: int
    candidates: int
    bytes: int
    nested: bool
    seconds: float


def select_from_pool(
    pool: Pool | str | Path,
    out: str | Path,
    *,
    method: str = "default",
    budget: Budget = "10%",
    seed: int = 0,
    candidates: str = "admitted",
    params: Mapping[str, Any] | None = None,
    constraints: Constraints | None = None,
    target: str | Path | None = None,
    on: str | None = None,
) -> Selected:
    """Choose among a pool's admitted rows and write a manifest.

    candidates: `admitted`, or `all` for every row that has an embedding, refused ones too, but none that was refused as
        too near an evaluation set (`eval_leak`) or taken down. A row that lacks a score which the method needs is none.
    params: fields of the method's dataclass. `view` besides: the further encoder whose embeddings the method reads
        instead of the pool's own; scores stay those of the pool's own.
    constraints: what the selection must keep to; columns of the pool, or fields of its rows' metadata.
    target: samples like those that are wanted: another pool of the same encoder, or an .npy file of embeddings (m, d).
    on: None for this process; `ray` or `ray://HOST:PORT` for the workers of a cluster, which read the embeddings, for
        methods that work on parts: they choose what they choose here in as many parts.

    Scores that the method needs are read where every candidate has one, else computed; nothing is stored.

    Raises:
        UsageError: the budget makes no sense, there is nothing to choose from, constraints cannot be met, or something
            that the method needs is missing. UnknownSelectorError: no such method.
    """
    if on:
        check_spread(method, {name: value for name, value in (params or {}).items() if name != "view"})
    with connected(on) if on else contextlib.nullcontext() as ray:
        return _selected(pool, out, method, budget, seed, candidates, params, constraints, target, ray)


def _selected(
    pool: Pool | str | Path,
    out: str | Path,
    method: str,
    budget: Budget,
    seed: int,
    candidates: str,
    params: Mapping[str, Any] | None,
    constraints: Constraints | None,
    target: str | Path | None,
    ray: Any,
) -> Selected:
    started = time.perf_counter()
    chosen_by, given = dict(params or {}), constraints or Constraints()
    pool = pool if isinstance(pool, Pool) else Pool.open(pool)
    if (place(out) / "samples.lance").is_dir():
        raise UsageError(f"{out} is a pool; give the manifest a folder of its own")
    view = str(chosen_by.pop("view", "image"))
    if view != "image" and isinstance(make(method, **chosen_by), OptiDelPatches):
        raise UsageError("crops are chosen by the pool's own encoder; leave view out")
    source = PoolCandidates(pool, candidates, target, view, ray)
    picked = _picked(source, method, chosen_by, budget, seed, given)
    made = make(method, **chosen_by)
    nested = entry(method).nested_as(made) and given.nested()
    choice = {
        "method": method,
        "budget": str(budget),
        "seed": seed,
        "params": {name: _told(getattr(made, name)) for name in parameters(type(made))},
        **({} if view == "image" else {"view": view}),
        **_kept_to(given, None if target is None else picked.target),
    }
    info = {
        **choice,
        "nested": nested,
        "candidates": {"kind": candidates, "rows": picked.eligible, "digest": digest(source.table["uid"].to_list())},
        "select_digest": digest({**choice, "from": candidates}),
        **picked.counts,
        **_origin(pool, source.table),
    }
    index = picked.chosen.index
    rows = _with_urls(_manifest_rows(source.table, picked.chosen, picked.columns), source, index)
    if not index.size:
        _LOG.warning("a budget of %s takes none of %d candidates: the manifest is empty", budget, picked.eligible)
    path = write_manifest(out, rows, info)
    stored = int(source.table["size"].gather(np.unique(index)).sum())  # an image of several crops counts once
    seconds = round(time.perf_counter() - started, 3)
    return Selected(str(path), method, index.size, picked.eligible, stored, nested, seconds)


@dataclass(frozen=True, slots=True)
class _Picked:
    """The choice, columns of its own, how many candidates there were, the target's embeddings, counts to be told."""

    chosen: Selection
    columns: Mapping[str, F32 | I64]
    eligible: int
    target: F32 | None
    counts: dict[str, Any]


def _picked(
    source: PoolCandidates, method: str, params: dict[str, Any], budget: Budget, seed: int, given: Constraints
) -> _Picked:
    """Choose rows, or rows and then crops of them."""
    made = make(method, **params)
    patches = made if isinstance(made, OptiDelPatches) else None
    by, settings = ("optidel", patches.of_images()) if patches else (method, params)
    data, lacking = source.filled(by, settings)
    places = replace(given, keep=source.places(given.keep, must=True), drop=source.places(given.drop, must=False))
    columns = {name: source.column(name) for name in sorted(given.columns())}
    sizes = source.table["size"].to_numpy().astype(np.int64)
    eligible = data.n - int((lacking | _at(places.drop, data.n)).sum())
    if parse_budget(budget, eligible).bytes is not None and not sizes.all():
        raise UsageError(
            f"a budget of {budget} is in stored bytes, which no image of given embeddings has: give a count or a share"
        )
    tiles = tiles_of(budget, eligible, given) if patches else 0
    amount = min(eligible, tiles * patches.images) if patches else budget
    chosen = select_among(data, lacking, by, amount, sizes, seed, settings, places, columns)
    if patches is None:
        return _Picked(chosen, two_phase(data, method, chosen, params), eligible, data.target, {})
    assert data.x is not None  # optidel needs them
    crops = choose_crops(source, data.x, chosen.index, patches, tiles, seed)
    return _Picked(crops.chosen, crops.columns, eligible, data.target, {"crops": crops.counts})


def _at(rows: Sequence[int], n: int) -> B1:
    marked = np.zeros(n, dtype=np.bool_)
    marked[np.asarray(rows, dtype=np.int64)] = True
    return marked


def _told(value: Any) -> Any:
    """Return a parameter as JSON has it: infinity as text."""
    if isinstance(value, (tuple, list)):
        return [_told(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _kept_to(given: Constraints, target: F32 | None) -> dict[str, Any]:
    """Return the constraints and the target, where there are any; long lists as digests."""
    told: dict[str, Any] = {}
    if given != Constraints():
        told["constraints"] = {
            "quotas": [asdict(quota) for quota in given.quotas],
            "keep": {"rows": len(given.keep), "digest": digest(sorted(map(str, given.keep)))},
            "drop": {"rows": len(given.drop), "digest": digest(sorted(map(str, given.drop)))},
            "group": given.group,
            "group_rule": given.group_rule,
        }
    if target is not None:
        data = np.ascontiguousarray(target).tobytes()
        told["target"] = {"rows": target.shape[0], "digest": hashlib.sha256(data).hexdigest()}
    return told


def _origin(pool: Pool, candidates: pl.DataFrame) -> dict[str, Any]:
    """Return what recipe, encoders and sources the candidates come from."""
    state = pool.state()
    uids = {
        name: part["uid"]
        for (name,), part in candidates.select("source", "uid").partition_by("source", as_dict=True).items()
    }
    return {
        "recipe_digest": digest(state["recipe"]),
        "encoders": {view: _without_device(bound) for view, bound in _encoders(state).items()},
        "sources": [
            {"id": name, "root": s["root"], "kind": s["kind"], "candidates": own.len(), "digest": _fingerprint(own)}
            for name, s in sorted(state["sources"].items())
            for own in [uids.get(name, pl.Series(dtype=pl.String))]
        ],
    }


def _encoders(state: Mapping[str, Any]) -> dict[str, Any]:
    return {**{view: state[view] for view in VIEWS if state.get(view)}, **state.get("extra", {})}


def _without_device(bound: Mapping[str, Any]) -> dict[str, Any]:
    """Return an encoder as a manifest tells it: what computed its rows is no part of the selection."""
    return {key: value for key, value in bound.items() if key != "compute"}


def _with_urls(parts: Iterator[pl.DataFrame], source: PoolCandidates, index: I64) -> Iterator[pl.DataFrame]:
    """Yield a manifest's rows with the `url` that their sources tell, where one has no place of its image's bytes."""
    if (source.table["path"].gather(index) != "").all():
        yield from parts
        return
    ordinals, start = source.table["row"].to_numpy()[index], 0
    for part in parts:
        rows = ordinals[start : start + part.height].tolist()
        meta = source.pool.take(rows, ["meta"]).column("meta").to_pylist() if rows else []
        urls = [url if isinstance(url := json.loads(text).get("url"), str) else None for text in meta]
        yield part.with_columns(url=pl.Series(urls, dtype=pl.String))
        start += part.height


def _fingerprint(uids: pl.Series) -> str:
    """Return the SHA-256 of uids, one after the other: each tells source, key and bytes of a sample."""
    whole = hashlib.sha256()
    for start in range(0, uids.len(), _ROWS):
        whole.update("".join(uids.slice(start, _ROWS).to_list()).encode())
    return whole.hexdigest()


def _manifest_rows(table: pl.DataFrame, chosen: Selection, extra: Mapping[str, F32 | I64]) -> Iterator[pl.DataFrame]:
    """Yield the chosen rows in rank order, some at a time: the manifest's columns, then the scores that have values."""
    chance = chosen.probability
    column: dict[str, F32 | I64] = {
        "weight": chosen.weight,
        "inclusion_probability": chance,
        "rank": np.arange(chosen.index.size, dtype=np.int64),
        **extra,
    }
    if (chance < 1).any():
        column["ht_weight"] = (1.0 / chance).astype(np.float32)
    index = chosen.index
    scores = [name for name in _SCORES if name == "pvi" or table[name].is_not_null().to_numpy()[index].any()]
    names = [*COLUMNS, *(name for name in column if name not in COLUMNS), *scores]
    for start in range(0, max(index.size, 1), _ROWS):
        part = slice(start, start + _ROWS)
        series = (pl.Series(name, values[part], nan_to_null=True) for name, values in column.items())
        yield table[index[part]].with_columns(series).select(names)
