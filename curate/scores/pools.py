"""Scores of a pool: computed for every row that has what they need, and stored as columns beside the embeddings."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.errors import UsageError
from curate.pool import QUALITY, Pool, Writer, table_schema
from curate.recipe import ScoreTable
from curate.remote import Place, place
from curate.scores.registry import make_score, parameters, score_entry
from curate.scores.rows import Rows, target_rows
from curate.scores.table import SCORES
from curate.stored import PLACE, stored_pixels
from curate_kernels.arrays import F32, U8, as_rows, unit_rows

_READ = ("uid", "decision", "embedded", "counted", "caption", "label", "meta", *PLACE)


@dataclass(frozen=True, slots=True)
class Scored:
    """What one scoring gave. columns: {name: {"rows": how many have a value, "mean": theirs, None of nothing}}."""

    pool: str
    version: int
    rows: int
    columns: dict[str, dict[str, float | None]]
    seconds: float


def score_pool(
    pool: str | Path,
    names: Sequence[str] = ("vinfo",),
    *,
    target: str | Path | None = None,
    params: Mapping[str, Any] | None = None,
    on: str | None = None,
) -> Scored:
    """Compute scores of every row, admitted or refused, and add them to the pool as columns; embeddings stay.

    names: of `curate.list_scores()`. target: another pool of the same encoder, or an .npy file of embeddings (m, d).
    params: fields of the score's dataclass; with several names, each takes those that it has. `view` besides: the
        further encoder whose embeddings are read instead of the pool's own; the columns end in its name.
    on: None for this process; `ray` or `ray://HOST:PORT` for the workers of a cluster, which score a fragment each:
        the scores whose models are sums, and those that look at one sample at a time.

    A column that is there already is replaced. Raises UsageError for what does not exist or lacks what it needs, and
    PoolLockedError while another process writes.
    """
    started = time.perf_counter()
    settings = dict(params or {})
    view = str(settings.pop("view", "image"))
    made = _made(names, settings)
    if on:
        from curate.scores.on_ray import score_parts

        version, rows, columns = score_parts(_there(pool), made, _needs(names), target, view, on)
        return Scored(str(pool), version, rows, columns, round(time.perf_counter() - started, 3))
    found: dict[str, F32] = {}
    with Writer(path := _there(pool)) as writer:
        opened = Pool.open(path)
        taken = pool_rows(opened, _needs(names), target, view)
        for name, score in made.items():
            for column, values in score.compute(taken).items():
                found[column_name(column, name, view, opened)] = values
        opened = writer.add_scores(opened, with_stored(found, opened))
    seconds = round(time.perf_counter() - started, 3)
    return Scored(str(pool), opened.version, opened.rows, {k: _summary(v) for k, v in found.items()}, seconds)


def _there(pool: str | Path) -> Place:
    return Pool.open(pool).path  # a Writer would make a folder for a pool that is not there


def _made(names: Sequence[str], params: Mapping[str, Any]) -> dict[str, Any]:
    if not names:
        raise UsageError(f"no score was named; there are: {', '.join(SCORES)}")
    if len(set(names)) == 1:
        return {names[0]: make_score(names[0], **params)}
    kinds = {name: parameters(name) for name in names}
    foreign = sorted(set(params) - {key for keys in kinds.values() for key in keys})
    if foreign:
        raise UsageError(f"none of {', '.join(names)} has a parameter {', '.join(foreign)}")
    return {name: make_score(name, **{k: v for k, v in params.items() if k in kinds[name]}) for name in names}


def _needs(names: Sequence[str]) -> set[str]:
    return {word for name in names for need in score_entry(name).needs for word in need.split(" or ")}


def column_name(column: str, score: str, view: str, pool: Pool) -> str:
    """Return a column's name in the table. Raises UsageError when it would overwrite what is not this score's."""
    column = column if view == "image" else f"{column}_{view}"
    # Lance refuses dots, and a table with a backtick in a name cannot be read any more.
    column = re.sub(r"[^\w -]", "_", column)
    own = {name for name, _, _ in SCORES[score].columns}
    others = {name: other for other, entry in SCORES.items() for name, _, _ in entry.columns}
    owner = others.get(column) or ("the engine" if column in table_schema(1).names else "")
    if owner and column not in own:
        raise UsageError(f"{score} would write the column {column!r}, which is {owner}'s; rename what it is made from")
    schema = pool.dataset.schema
    if column in schema.names and str(schema.field(column).type) != "float":
        raise UsageError(f"{score} would write the column {column!r}, which holds something else in this pool")
    return column


def with_stored(found: dict[str, F32], pool: Pool) -> dict[str, F32]:
    """Return the columns, with the quality measured at arrival where an image is gone: checkpoints judge by it."""
    for name in QUALITY:
        if name in found and name in pool.columns:
            stored = pool.frame([name])[name].cast(pl.Float32).fill_null(math.nan).to_numpy()
            found[name] = np.where(np.isnan(found[name]), stored, found[name])
    return found


def _summary(values: F32) -> dict[str, float | None]:
    known = values[np.isfinite(values)]
    return {"rows": int(known.size), "mean": round(float(known.mean()), 5) if known.size else None}


def pool_rows(pool: Pool, needs: set[str], target: str | Path | None = None, view: str = "image") -> Rows:
    """Return the rows of a pool with the parts that `needs` names, in order of arrival; view: embeddings to take."""
    state = pool.state()
    bound = bound_to(state, view)
    table = pool.frame(_READ)
    image = None
    embedded = table["embedded"].to_numpy()
    classes = list(state["classes"])
    views = {"image", "text"} & needs
    dims = sum((bound if side == "image" else state[side])["dim"] for side in views if state.get(side))
    limit = float(state["recipe"]["limits"]["memory_gb"])
    if table.height * dims * 4 > limit * 1e9:
        raise UsageError(
            f"the embeddings of {table.height} rows take {table.height * dims * 4 / 1e9:.1f} GB, more than"
            f" limits.memory_gb = {limit:g} in the pool's recipe"
        )
    if "image" in needs:
        image = unit(pool.embeddings(view))
        embedded = embedded & image.any(axis=1) if view != "image" else embedded
    number = {name: i for i, name in enumerate(classes)}
    return Rows(
        n=table.height,
        image=image,
        text=unit(pool.embeddings("text")) if "text" in needs and "text" in pool.columns else None,
        caption=table["caption"].to_list() if "caption" in needs else None,
        label=np.array([number.get(name, -1) for name in table["label"].to_list()], dtype=np.int64),
        classes=classes,
        valid=embedded,
        kept=(table["decision"] == "admit").to_numpy() & embedded,
        counted=_counted(table) & embedded,
        shared=_shared(bound, state.get("text")),
        table=ScoreTable(**state["recipe"]["score"]),
        columns=_columns(table) if "column" in needs else {},
        target=_target(target, pool, state, view) if target is not None else None,
        pixels=partial(_pixels, table, state),
        text_encoder=partial(_text_encoder, bound),
    )


def unit(x: F32) -> F32:
    """Return the rows scaled to norm 1, in place: float16 left them 1e-4 off, and a cosine above 1."""
    norm = np.sqrt(np.einsum("ij,ij->i", x, x))
    x /= np.where(norm > 0, norm, 1)[:, None]
    return x


def _counted(table: pl.DataFrame) -> Any:
    """Return the rows that models are fitted on: those in the engine's sums, and the kept ones that no sum takes in."""
    bare = table["caption"].is_null() & table["label"].is_null() & (table["decision"] == "admit")
    return (table["counted"] | bare).to_numpy()


def bound_to(state: Mapping[str, Any], view: str) -> Mapping[str, Any]:
    """Return the image encoder whose rows a view holds. Raises UsageError where the pool has no such embeddings."""
    extra = state.get("extra", {})
    if view != "image" and view not in extra:
        raise UsageError(f"this pool has no image embeddings {view!r}; there are: {', '.join(['image', *extra])}")
    found: Mapping[str, Any] = extra[view] if view in extra else state["image"]
    return found


def _shared(image: Mapping[str, Any], captions: Mapping[str, Any] | None) -> bool:
    """Tell whether both encoders are the towers of one model."""
    text = captions or {"name": "", "dim": 0}
    return bool(image["name"] == text["name"] != "builtin" and image["dim"] == text["dim"])


def _columns(table: pl.DataFrame) -> dict[str, Sequence[Any]]:
    """Return every metadata field of any row as a column, missing values as None."""
    records = [json.loads(meta) if meta else {} for meta in table["meta"].to_list()]
    names = sorted({name for record in records for name in record})
    return {name: [record.get(name) for record in records] for name in names} | {"label": table["label"].to_list()}


def _pixels(table: pl.DataFrame, state: Mapping[str, Any]) -> Iterator[U8 | None]:
    roots = {name: source["root"] for name, source in state["sources"].items()}
    rows = table.select(PLACE).iter_rows(named=True)
    return stored_pixels(rows, roots, state["recipe"]["limits"]["max_pixels"])


def _text_encoder(image: Mapping[str, Any]) -> Any:
    from curate.encoders import default_text_encoder, load_text_encoder

    name = default_text_encoder(image["name"])  # the captions may have another one
    encoder = load_text_encoder(name)
    if encoder.dim != image["dim"] or name != image["name"]:
        raise UsageError(
            f"the text encoder {name!r} is not in the space of the images; prompts need an open_clip model"
        )
    return encoder


def _target(path: str | Place, pool: Pool, state: Mapping[str, Any], view: str) -> Rows:
    """Return the target set: the admitted rows of another pool, or the rows of an .npy file."""
    path = place(path)
    if path.suffix == ".npy":
        try:
            with path.open("rb") as file:
                array = np.load(file, allow_pickle=False)
            x = unit_rows(as_rows(array, f"target {path}"))
        except (OSError, ValueError) as error:
            raise UsageError(f"the target {path} cannot be read: {error}") from error
        return target_rows(x)
    other = Pool.open(path)
    theirs = other.state()
    if bound_to(theirs, view)["fingerprint"] != bound_to(state, view)["fingerprint"]:
        raise UsageError(
            f"the target pool {path} has another image encoder than {pool.path}: {bound_to(theirs, view)['name']}"
        )
    number = {name: i for i, name in enumerate(state["classes"])}
    labels = other.frame(["label"], where="decision = 'admit'")["label"].to_list()
    label = np.array([number.get(name, -1) for name in labels], dtype=np.int64)
    return target_rows(unit(other.embeddings(view, where="decision = 'admit'")), label)
