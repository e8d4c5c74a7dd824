"""One corrupted training split beside its clean held-out rows: what selectors choose from and tasks test on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from curate.benchmark.corrupt import Facts, Plan, apply, clean_plan
from curate.benchmark.definition import Definition, Set, Step, as_json
from curate.benchmark.pixels import altered
from curate.benchmark.sets import Base, encode, image_encoder, load_base, save
from curate.errors import UsageError
from curate.files import digest
from curate_kernels.arrays import F32, I64, unit_rows

_NOISE = (0.02, 0.2)  # length of what near-duplicates of embeddings are moved by: cosine .98 to .9998


@dataclass(frozen=True)
class World:
    """n training rows as corrupted, m held-out ones as they were.

    x: (n, d), text: (n, t) or None, float32 unit rows; label: (n,) codes of `classes`, as borne; plan: with the truth
    test: images held out; digest: of everything that made it; cache: folder of what was encoded
    """

    base: Base
    plan: Plan
    x: F32
    test: I64
    digest: str
    cache: Path

    @cached_property
    def text(self) -> F32 | None:
        """Embeddings of the captions that the rows bear."""
        return None if self.base.text is None else unit_rows(self.base.text[self.plan.caption])

    @cached_property
    def labels(self) -> list[str | None] | None:
        """Names of the classes that the rows bear, None where the collection has no labels."""
        if (self.base.label < 0).all():
            return None
        return [None if code < 0 else self.base.classes[code] for code in self.plan.label.tolist()]

    @cached_property
    def test_x(self) -> F32:
        """Embeddings of the held-out rows."""
        return unit_rows(self.base.x[self.test])

    @property
    def n(self) -> int:
        """Number of training rows."""
        return self.plan.n


def build_world(definition: Definition, dataset: str, corruption: str, seed: int, cache: Path) -> World:
    """Return the world of one collection, one corruption and one seed. Raises UsageError where they do not fit."""
    one, steps = definition.dataset[dataset], definition.corruption[corruption]
    base = load_base(one, seed, cache)
    told = {"base": base.digest, "set": as_json(one), "steps": as_json(steps), "seed": seed}
    name = digest(told)
    train, test = split(base.group, one.test, np.random.default_rng([seed, 1]))
    has_captions = base.text is not None
    facts = Facts(base.x, base.label, base.columns, test, base.read is not None, has_captions)
    plan = clean_plan(train, base.label)
    for number, step in enumerate((*planted(one), *steps)):
        try:
            plan = apply(plan, step, facts, np.random.default_rng([seed, 2, number]))
        except UsageError as error:
            raise UsageError(f"dataset.{dataset} under corruption.{corruption}: {error}") from error
    return World(base, plan, _rows(one, base, plan, cache / f"changed-{name[:32]}.npy"), test, name, cache)


def planted(one: Set) -> list[Step]:
    """Return the corruptions that a collection's own keys ask for."""
    kinds = {
        "outliers": one.outliers,
        "label-flip": one.flipped,
        "caption-shuffle": one.shuffled,
        "near-duplicate": one.near_duplicates,
        "leaks": one.leaks,
    }
    return [Step(kind=kind, share=share) for kind, share in kinds.items() if share > 0]


def split(group: I64, share: float, rng: np.random.Generator) -> tuple[I64, I64]:
    """Return the training and the held-out rows, whole groups each: drawn until the share is reached."""
    names, size = np.unique(group, return_counts=True)
    order = rng.permutation(names.size)
    wanted = share * group.size
    before = np.cumsum(size[order]) - size[order]
    out = names[order[before < wanted]]
    held = np.isin(group, out)
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def _rows(one: Set, base: Base, plan: Plan, kept: Path) -> F32:
    """Return the embeddings of what the rows show; altered images are encoded once."""
    x = base.x[plan.origin].copy()
    at = np.flatnonzero(plan.change != "")
    if at.size and base.read is None:
        for i in at.tolist():
            for change in str(plan.change[i]).split("|"):
                x[i] = _moved(x[i], change)
    elif at.size:
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            order = np.argsort(plan.origin[at], kind="stable")  # as they lie: a source is read on, not opened anew
            images = base.read(plan.origin[at[order]])  # type: ignore[misc]
            pixels = (altered(image, str(plan.change[i])) for image, i in zip(images, at[order].tolist(), strict=True))
            save(kept, encode(image_encoder(one.encoder), pixels)[np.argsort(order)])
        x[at] = np.load(kept, allow_pickle=False).astype(np.float32)
    return unit_rows(x)


def _moved(row: F32, change: str) -> F32:
    """Return an embedding moved by noise a little, or replaced by a random direction."""
    kind, _, seed = change.partition(":")
    rng = np.random.default_rng(int(seed))
    noise = rng.normal(size=row.size)
    noise /= np.linalg.norm(noise)
    moved = noise if kind == "outlier" else row + rng.uniform(*_NOISE) * noise
    return (moved / np.linalg.norm(moved)).astype(np.float32)
