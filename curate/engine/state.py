"""What the engine remembers between two commits, as one JSON value. Everything else is derived from the pool."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from curate.errors import PoolError

FORMAT = [3, 0]


@dataclass(slots=True)
class Encoder:
    """An encoder that a pool is bound to, and its calibrated near-duplicate distance.

    compute: what the newest rows were computed with, as `curate.encoders.Compute` writes it; "" is not known
    """

    name: str
    fingerprint: str
    dim: int
    epsilon: float
    compute: str = ""


@dataclass(slots=True)
class SourceState:
    """How far a source was read: the first `position` rows of the listing with this fingerprint are decided."""

    root: str
    kind: str
    fingerprint: str
    position: int


@dataclass(slots=True)
class Checkpoint:
    """The last re-decision: which sums it was fitted on, and what it chose.

    batches: batches whose rows the sums hold; pairs, labels: rows in the sums; sums: {"pairs"|"labels": file name}
    ridges: of text given image and image given text; caption, classes: calibrated thresholds, as saved
    warming: captioned rows are still held back
    settled: what it refused was tried to be mended, so that the end of a run calls for nothing more
    """

    batches: int
    pairs: int
    labels: int
    sums: dict[str, str]
    ridges: list[float]
    caption: dict[str, float] | None
    classes: dict[str, dict[str, float]]
    warming: bool
    settled: bool


@dataclass(slots=True)
class Bound:
    """What a sample must reach to enter a kept set of bounded size: `bound.py`. max_kept: the bound that it is for."""

    max_kept: int
    least: float
    top: float


@dataclass(slots=True)
class State:
    """The whole state.

    step counts commits, rows and batches what was decided, pairs and labels the rows in the sums, held those held back

    classes: label names, numbered in order of first appearance; changes: recipe changes that were asked for
    guards: names of the files with the registered evaluation sets
    extra: encoders of further columns by name; patches: number and dimensions of the patch tokens, if they are stored
    """

    recipe: dict[str, Any]
    image: Encoder
    text: Encoder | None = None
    step: int = 0
    rows: int = 0
    batches: int = 0
    pairs: int = 0
    labels: int = 0
    held: int = 0
    sources: dict[str, SourceState] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)
    guards: list[str] = field(default_factory=list)
    bound: Bound | None = None
    extra: dict[str, Encoder] = field(default_factory=dict)
    patches: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the state as a JSON value."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> State:
        """Return the state of a JSON value. Raises PoolError for a format that this version does not know."""
        value = dict(value)
        found = value.pop("format", [0, 0])
        if found[0] != FORMAT[0]:
            other = (
                "a newer version of curate: upgrade" if found[0] > FORMAT[0] else "an older version: grow a new pool"
            )
            raise PoolError(f"the pool's state has format {found[0]}, and {FORMAT[0]} is known here; it is of {other}")
        return cls(
            **value
            | {
                "image": Encoder(**value["image"]),
                "text": Encoder(**value["text"]) if value["text"] else None,
                "extra": {name: Encoder(**extra) for name, extra in value.get("extra", {}).items()},
                "sources": {name: SourceState(**source) for name, source in value["sources"].items()},
                "bound": Bound(**value["bound"]) if value.get("bound") else None,
                "checkpoint": Checkpoint(**value["checkpoint"]) if value["checkpoint"] else None,
            }
        )
