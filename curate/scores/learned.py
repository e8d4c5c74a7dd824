"""Scores from models that the user brings: a head on the embeddings, prompts, a model that is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from curate.errors import UsageError
from curate.scores.rows import Rows, by_tile
from curate.scores.summed import Extra, InParts, Over
from curate_kernels.arrays import F32, U8

if TYPE_CHECKING:
    from curate.encoders.prompts import PromptScorer

_CHUNK = 64


def _scored(name: str, rows: Rows, score: Callable[[F32], F32]) -> dict[str, F32]:
    """Return a column with the scores of every image embedding; a head's hidden layers may be as wide as they are."""
    image, none = rows.images(), np.full(rows.n, math.nan, dtype=np.float32)
    return {name: none} | by_tile(rows.valid, lambda part: {name: score(image[part])})


@dataclass(frozen=True)
class HeadScore:
    """file: safetensors with the layers; title: of the column; activation, output, column: see `read_head`."""

    file: str
    title: str = "score"
    activation: str = "none"
    output: str = "none"
    column: int = 0
    by_row: ClassVar[bool] = True

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the head's output for every image embedding."""
        from curate.scoring.heads import read_head

        head = read_head(self.file, activation=self.activation, output=self.output, column=self.column)
        return _scored(f"head_{self.title}", rows, head.score)


@dataclass(frozen=True)
class Prompts:
    """positive, negative: prompts, several parted by `|`; temperature: of the softmax."""

    positive: str
    negative: str
    temperature: float = 100.0

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the probability of the positive side."""
        return _prompted(self._scorer(rows), rows, {})

    def in_parts(self, over: Over) -> InParts:
        """Return the score with its prompts encoded, once for all parts."""
        return InParts(partial(_prompted, self._scorer(over.whole)), None, ("prompts",))

    def _scorer(self, rows: Rows) -> PromptScorer:
        from curate.encoders.prompts import prompt_scorer

        if rows.text_encoder is None:
            raise UsageError("prompts need a text encoder in the space of the images (open_clip)")
        positive, negative = ([p.strip() for p in s.split("|") if p.strip()] for s in (self.positive, self.negative))
        return prompt_scorer(rows.text_encoder(), positive, negative, self.temperature)


def _prompted(scorer: PromptScorer, rows: Rows, _: Extra) -> dict[str, F32]:
    return _scored("prompts", rows, scorer.score)


@dataclass(frozen=True)
class Ask:
    """model: a folder, or a hub name that is at hand; images: show the image too; prompt, batch, device."""

    model: str
    images: bool = False
    prompt: str = ""
    batch: int = 8
    device: str = ""

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the probability of yes; NaN where there is no caption, or no image where one is shown."""
        from curate.encoders.ask import AskSettings, load_ask_scorer

        captions = rows.captions()
        if self.images and rows.pixels is None:
            raise UsageError("ask with images=true needs the images, and only embeddings were given")
        settings = AskSettings(prompt=self.prompt, batch=self.batch, device=self.device)
        scorer = load_ask_scorer(self.model, reads_images=self.images, settings=settings)
        out = np.full(rows.n, math.nan, dtype=np.float32)
        pixels: Iterable[U8 | None] = rows.pixels() if self.images and rows.pixels else repeat(None, rows.n)
        todo = ((i, c, p) for i, (c, p) in enumerate(zip(captions, pixels, strict=True)) if c is not None)
        if self.images:
            todo = ((i, c, p) for i, c, p in todo if p is not None)
        while part := list(islice(todo, _CHUNK)):
            at, texts, shown = zip(*part, strict=True)
            out[list(at)] = scorer.score(list(texts), list(shown) if self.images else None)
        return {"ask": out}
