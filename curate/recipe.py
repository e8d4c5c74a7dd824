"""A recipe fixes a whole run: one TOML file, frozen dataclasses with every default, one digest.

docs/recipe.md is generated from it by `curate.recipe_reference`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.errors import RecipeError
from curate.files import digest
from curate.recipe_lines import load_toml
from curate.select_table import SelectTable, check_select


def _key(default: Any, text: str, low: float | None = None, high: float | None = None, per_run: bool = False) -> Any:
    """Return a dataclass field with its documentation and its bounds (inclusive).

    per_run: no decision depends on it, so it is not part of what a pool is bound to
    """
    return field(default=default, metadata={"help": text, "low": low, "high": high, "per_run": per_run})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTable:
    """What the sources are and the names of the columns to read, given anew for each run."""

    kind: str = _key("", "kind of the sources, as `curate sources` lists them; empty: told by a look at each")
    path: str = _key("", "column that holds the image path; empty: file_name, filepath, image_path or path")
    label: str = _key("", "column or field that holds the class label")
    caption: str = _key("", "column or field that holds the caption; empty: the source's own (`.txt`, caption, text)")
    alternatives: str = _key("", "column or field with other captions; empty: what the caption's own lists besides")
    group: str = _key("", "column or field that holds the group (patient, scene, site)")
    images: str = _key("", "folder of the images that a COCO file describes; empty: found by convention")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeTable:
    """The frozen encoders."""

    image: str = _key(
        "builtin",
        "`builtin`, `open_clip:<arch>/<pretrained tag or local path>`, `timm:<model>//<path>`, `onnx:<file>`, or, for"
        " sources that give embeddings, `precomputed:<which>`, as `precomputed:b32` (chosen by itself: DataComp's l14,"
        " else nameless ones)",
    )
    text: str = _key(
        "",
        "`builtin`, `open_clip:…`, `st:<folder or name>`; empty: open_clip's own tower, else builtin",
    )
    decode: str = _key(
        "reduced", "`reduced`: a JPEG at a half, quarter or eighth, if the encoder needs no more; `full`"
    )
    workers: int = _key(
        -1,
        "decode processes; 0: threads; -1: one per CPU but one, 8 at most, once 256 rows have come",
        -1,
        256,
        per_run=True,
    )
    extra: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "help": 'more image encoders, whose rows go into columns of these names: `{dino = "timm:…"}`',
            "low": None,
            "high": None,
            "per_run": True,
        },
    )
    patches: bool = _key(
        False, "store the patch tokens of the image encoder, which are large: `image_patches`", per_run=True
    )
    device: str = _key(
        "auto", "`auto`, cpu, cuda, cuda:1, mps; images are shared by several: cuda:0,cuda:1", per_run=True
    )
    precision: str = _key(
        "auto",
        "float32, bfloat16, float16; `auto`: as the pool was made, else what the device is fast in",
        per_run=True,
    )
    compile: bool = _key(False, "compile networks with torch.compile", per_run=True)
    cache: str = _key("", "folder of embeddings by content, shared by pools and processes; empty: none", per_run=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupTable:
    """What counts as a duplicate of a kept sample."""

    match: str = _key("pair", "`pair`: a captioned sample duplicates only one whose caption is the same too; `image`")
    epsilon: float = _key(0.0, "near-duplicate distance of images, 1 - cosine; 0: the encoder's calibrated one", 0, 2)
    epsilon_text: float = _key(0.0, "distance below which two captions are the same; 0: the encoder's own", 0, 2)
    phash: int = _key(2, "most bits in which perceptual hashes of look-alikes differ; -1: hashes do not matter", -1, 64)
    epsilon_phash: float = _key(0.0, "near-duplicate distance of look-alikes; 0: three times that of others", 0, 2)
    keep: str = _key(
        "first",
        "which of several duplicates is kept: `first`; `largest`, most pixels; `aligned`, highest pvi; or the highest"
        " value of a numeric column or metadata field of this name. A better one replaces the kept at a checkpoint",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanTable:
    """The cleaning gates."""

    captions: bool = _key(True, "refuse pairs whose image and caption do not inform each other")
    labels: bool = _key(True, "refuse samples whose label does not fit their image")
    caption_loss: float = _key(0.05, "share of good pairs that the caption gate may lose", 0, 0.5)
    label_loss: float = _key(0.05, "share of all good labels that the label gate may lose", 0, 0.5)
    min_precision: float = _key(0.5, "a gate refuses no more than keeps this share of its refusals truly bad", 0, 1)
    warmup: int = _key(1000, "captioned rows before the caption gate opens; earlier rows are held back", 64)
    checkpoint_growth: float = _key(
        1.5, "everything is re-decided when the scored rows grew by this factor; beyond 100,000 by 2 or more", 1.01
    )
    min_class: int = _key(20, "a class with fewer rows than this is never refused by label", 2)
    min_side: int = _key(32, "shortest side of an image in pixels; below it: too_small", 1)
    max_aspect: float = _key(8.0, "longest side over shortest side; above it: low_quality", 1)
    min_contrast: float = _key(8.0, "range of luminance (1st to 99th percentile, 0-255); below it: low_quality", 0)
    min_sharpness: float = _key(1.0, "mean absolute Laplacian of luminance at 224 px; below it: low_quality", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MendTable:
    """What is tried on samples that a cleaning gate refuses, in this order, before they stay refused."""

    alternatives: bool = _key(True, "take the best of the sample's other captions, if the gate lets that one pass")
    captioner: str = _key("", "image-to-text model that captions them: a folder, or `hf:<name>` in the local cache")
    relabel: bool = _key(True, "give the class that nearest rows and discriminant agree on, if the gate lets it pass")
    confidence: float = _key(0.95, "posterior probability that a new label needs", 0.5, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """The V-information family: linear-Gaussian, on principal components."""

    image_dims: int = _key(512, "components of the image that predict", 2)
    text_dims: int = _key(384, "components of the caption that predict", 2)
    target_dims: int = _key(96, "components that are predicted, either way", 2)
    label_dims: int = _key(512, "components of the image that predict the label", 2)
    shrinkage: float = _key(0.1, "share of the within-class scatter replaced by its mean diagonal", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GainTable:
    """InfoGrowth's information gain."""

    k: int = _key(4, "nearest kept samples that a gain is measured against", 1, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsTable:
    """Bounds on what a run may take."""

    batch_size: int = _key(256, "rows decided and committed together; fixed for the life of a pool", 1, 65536)
    max_pixels: int = _key(100_000_000, "larger images are refused before they are decoded: too_many_pixels", 1)
    decode_seconds: float = _key(20.0, "an image that takes a decode process longer is refused: decode_timeout", 0.1)
    max_kept: int = _key(0, "most samples that stay admitted; beyond, low gains are refused: budget; 0: no bound", 0)
    memory_gb: float = _key(8.0, "Pool.embeddings refuses to load more than this", 0.001)


_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PER_RUN = ("source", "select")  # tables of which no key decides anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All tables. `digest()` identifies every decision that the recipe can change."""

    source: SourceTable = field(default_factory=SourceTable)
    encode: EncodeTable = field(default_factory=EncodeTable)
    dedup: DedupTable = field(default_factory=DedupTable)
    clean: CleanTable = field(default_factory=CleanTable)
    mend: MendTable = field(default_factory=MendTable)
    score: ScoreTable = field(default_factory=ScoreTable)
    gain: GainTable = field(default_factory=GainTable)
    select: SelectTable = field(default_factory=SelectTable)
    limits: LimitsTable = field(default_factory=LimitsTable)

    def digest(self) -> str:
        """Return the SHA-256 over every key that a pool's decisions depend on."""
        return digest(self.binding())

    def binding(self) -> dict[str, dict[str, Any]]:
        """Return the part that a pool is bound to: all but [source], [select], and keys that decide nothing."""
        kept = [table for table in dataclasses.fields(self) if table.name not in _PER_RUN]
        return {table.name: _bound_keys(getattr(self, table.name)) for table in kept}

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return {table: {key: value}} with every key, defaults included."""
        return dataclasses.asdict(self)

    def replace(self, changes: dict[str, dict[str, Any]]) -> Recipe:
        """Return a recipe with {table: {key: value}} changed; raises RecipeError for what does not exist or fit."""
        old = self.as_dict()
        mixed = {name: old.get(name, {}) | new if isinstance(new, dict) else new for name, new in changes.items()}
        return _build(old | mixed)

    def differences(self, other: Recipe) -> list[str]:
        """Return `table.key: mine != theirs` for every key of the digest in which two recipes differ."""
        theirs = other.binding()
        return [
            f"{name}.{key}: {value!r} != {theirs[name][key]!r}"
            for name, table in self.binding().items()
            for key, value in table.items()
            if value != theirs[name][key]
        ]


def _bound_keys(table: Any) -> dict[str, Any]:
    values = dataclasses.asdict(table)
    return {key.name: values[key.name] for key in dataclasses.fields(table) if not key.metadata["per_run"]}


def load_recipe(path: str | Path) -> Recipe:
    """Read a TOML recipe. Raises RecipeError with the line for anything unknown, mistyped or out of range."""
    return load_toml(path, "recipe", _build, RecipeError)


def recipe_from_dict(tables: dict[str, Any]) -> Recipe:
    """Return the recipe of {table: {key: value}}; missing keys take their defaults."""
    return _build(tables)


def _build(tables: dict[str, Any]) -> Recipe:
    kinds = {f.name: f.default_factory for f in dataclasses.fields(Recipe)}
    made: dict[str, Any] = {}
    for name, values in tables.items():
        if name not in kinds:
            raise RecipeError(f"unknown table [{name}]; there are: {', '.join(kinds)}")
        if not isinstance(values, dict):
            raise RecipeError(f"{name} must be a table: write [{name}]")
        kind: Any = kinds[name]
        made[name] = kind(**_checked(name, kind, values))
    recipe = Recipe(**made)
    if recipe.dedup.match not in ("pair", "image"):
        raise RecipeError(f"dedup.match is {recipe.dedup.match!r}; it must be 'pair' or 'image'")
    if recipe.encode.decode not in ("reduced", "full"):
        raise RecipeError(f"encode.decode is {recipe.encode.decode!r}; it must be 'reduced' or 'full'")
    if 0 < recipe.limits.max_kept < 2 * recipe.limits.batch_size:
        raise RecipeError(
            f"limits.max_kept is {recipe.limits.max_kept}; it must be 0 or at least two batches"
            f" ({2 * recipe.limits.batch_size})"
        )
    check_select(recipe.select)
    for name, encoder in recipe.encode.extra.items():
        if not _COLUMN.fullmatch(name) or not isinstance(encoder, str):
            raise RecipeError(
                f'encode.extra.{name} is {encoder!r}; write name = "encoder", the name in lower case letters,'
                " digits and _"
            )
    return recipe


def default_of(key: dataclasses.Field[Any]) -> Any:
    """Return the default of a key, a field of one of the tables."""
    return key.default if key.default_factory is dataclasses.MISSING else key.default_factory()


def _checked(table: str, kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    checked = dict(values)
    for key, given in values.items():
        if key not in fields:
            raise RecipeError(f"unknown key {table}.{key}; [{table}] has: {', '.join(fields)}")
        wanted = type(default_of(fields[key]))
        whole = wanted is float and type(given) is int and abs(given) < 2**53
        value = checked[key] = float(given) if whole else given
        if type(value) is not wanted or (type(value) is float and not math.isfinite(value)):
            kind_name = "finite number" if wanted is float else wanted.__name__
            raise RecipeError(f"{table}.{key} is {value!r}; it must be of type {kind_name}")
        low, high = fields[key].metadata["low"], fields[key].metadata["high"]
        if (low is not None and value < low) or (high is not None and value > high):
            raise RecipeError(
                f"{table}.{key} is {value!r}; it must be at least {low}" + (f" and at most {high}" if high else "")
            )
    return checked
