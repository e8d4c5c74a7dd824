"""A pool's past: what each version did, how two of them differ, and going back to one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl

from curate.engine.forget import past_log
from curate.engine.grow import count_decisions
from curate.engine.state import State
from curate.errors import UsageError
from curate.pool import Pool, Writer
from curate.recipe import recipe_from_dict

Version = int | str
_SHOWN = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


def log(pool: str | Path) -> list[dict[str, Any]]:
    """Return what every version did, newest first: {"version", "timestamp", "what", …}.

    what: created, batch, checkpoint, review, scores, encoder (a further one is named), embedded (its rows), rollback,
    forget, moved (no rows, another state), commit (by an older version of curate) or layout (columns or files were
    rearranged, no decision changed). One that has a tag shows it in "tags"; one that a takedown removed is "gone".
    """
    opened = Pool.open(pool)
    tags = _tags(opened)
    return [
        {**entry, **opened.event(entry["version"])}
        | ({"tags": tags[entry["version"]]} if entry["version"] in tags else {})
        for entry in reversed(opened.versions())
    ] + past_log(opened.path)


def tag(pool: str | Path, name: str, version: Version | None = None, delete: bool = False) -> dict[str, Any]:
    """Name a version (the newest by default), or take a name away; return {"tag", "version"}.

    A tagged version can be named wherever a version is asked for. Raises UsageError for a name that is taken, unknown,
    or looks like a number.
    """
    with Writer(Pool.open(pool).path) as writer:
        opened = Pool.open(writer.path)
        known = opened.tags()
        if delete:
            if name not in known:
                raise UsageError(f"no version is called {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
            writer.untag(opened, name)
            return {"tag": name, "version": known[name]}
        if name in known or name.endswith(".lock") or not _NAME.fullmatch(name):
            taken = f"it names version {known[name]}" if name in known else "write one like release-1.2"
            raise UsageError(f"a version cannot be called {name!r}: {taken}")
        number = opened.version if version is None else _number(opened, version)
        writer.tag(opened, name, number)
    return {"tag": name, "version": number}


def diff(pool: str | Path, first: Version, second: Version) -> dict[str, Any]:
    """Return how two versions differ: rows added and gone, decisions that changed, columns, recipe.

    changed: {"admit → refuse near_duplicate": n, …}; examples: up to 20 rows that were decided anew
    """
    return changes(Pool.open(pool), first, second)[0]


def changes(pool: Pool, first: Version, second: Version) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return what `diff` does, and {"was → is": uids of the rows that were decided anew}, the most frequent first."""
    old, new = (Pool.open(pool.path, _number(pool, version)) for version in (first, second))
    names = ["uid", "source", "key", "decision", "reason"]
    before, after = old.frame(names), new.frame(names)
    both = before.join(after, on="uid", how="inner", suffix="_after")
    changed = both.filter(
        (pl.col("decision") != pl.col("decision_after")) | (pl.col("reason") != pl.col("reason_after"))
    )
    step = pl.format("{} {} → {} {}", "decision", "reason", "decision_after", "reason_after")
    steps = changed.select(step.alias("step")).group_by("step").len().sort("len", "step", descending=[True, False])
    added = after.join(before, on="uid", how="anti")
    decided = dict(steps.iter_rows())
    told = {
        "versions": [old.version, new.version],
        "rows": [before.height, after.height],
        "added": count_decisions(added) | {"rows": added.height},
        "gone": before.join(after, on="uid", how="anti").height,
        "changed": decided,
        "columns_added": [name for name in new.columns if name not in old.columns],
        "columns_gone": [name for name in old.columns if name not in new.columns],
        "recipe": recipe_from_dict(new.state()["recipe"]).differences(recipe_from_dict(old.state()["recipe"])),
        "examples": changed.head(_SHOWN).select("uid", "source", "key", step.alias("change")).to_dicts(),
    }
    moved = changed.select("uid", step.alias("step"))
    return told, {name: moved.filter(pl.col("step") == name)["uid"].to_list() for name in decided}


def rollback(pool: str | Path, version: Version) -> dict[str, Any]:
    """Make a new version that equals an old one: rows, decisions, scores, statistics, and how far sources were read.

    Nothing is lost: the versions in between stay, and a rollback can be rolled back. Growing the same sources again
    sees the rows that are gone now. Returns {"pool", "version", "equals", "rows", "admitted"}.
    """
    with Writer(Pool.open(pool).path) as writer:
        newest = Pool.open(writer.path)
        number = _number(newest, version)
        old = Pool.open(writer.path, number)
        state = State.from_dict(old.state())
        old.verify()
        counts = count_decisions(old.frame(["decision", "reason"]))
        # Names stay in order, so that no state is an orphan. The newest state itself may be damaged.
        step = int(newest.state_name().partition("-")[0])
        writer.remove_orphans(step)
        state.step = step + 1
        done = writer.restore(newest, number, state.as_dict())
    return {
        "pool": str(pool),
        "version": done.version,
        "equals": number,
        "rows": done.rows,
        "admitted": counts["admitted"],
    }


def _tags(pool: Pool) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, version in pool.tags().items():
        found.setdefault(version, []).append(name)
    return found


def _number(pool: Pool, version: Version) -> int:
    """Return the number of a version given by number or tag. Raises UsageError, naming what there is."""
    numbers = [entry["version"] for entry in pool.versions()]
    tags = pool.tags()
    text = str(version)
    number = tags.get(text, int(text) if text.isascii() and text.isdigit() else -1)
    if number not in numbers:
        there = f"versions {min(numbers)} to {max(numbers)}" + (f", tags {', '.join(sorted(tags))}" if tags else "")
        raise UsageError(f"the pool at {pool.path} has no version {text!r}; it has {there}")
    return number
