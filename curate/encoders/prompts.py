"""Zero-shot scores: how much nearer an image is to some prompts than to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.encoders.protocols import F32, TextEncoder
from curate.errors import EncoderError

_TEMPERATURE = 100.0  # what CLIP's training multiplies cosines with


@dataclass(frozen=True, slots=True)
class PromptScorer:
    """positive, negative: (d,) float32 unit rows, the mean of each side's prompts in the image encoder's space."""

    positive: F32
    negative: F32
    temperature: float = _TEMPERATURE

    def score(self, x: F32) -> F32:
        """Return (n,) float32 probabilities of the positive side; high: like the positives, 0.5: like both or neither.

        p = exp(t x·p) / (exp(t x·p) + exp(t x·n)): Radford et al., ICML 2021 (2103.00020), section 3.1, two classes.

        x: (n, d) float32 unit rows of the image encoder; a zero row gives 0.5

        Raises:
            EncoderError: x has not the dimensions of the prompts.
        """
        if x.ndim != 2 or x.shape[1] != self.positive.shape[0]:
            raise EncoderError(
                f"the prompts have {self.positive.shape[0]} dimensions, the images shape {x.shape}: encode both "
                "with the two towers of one open_clip model"
            )
        margin = self.temperature * (x.astype(np.float64) @ (self.positive.astype(np.float64) - self.negative))
        # tanh does not overflow.
        scores: F32 = (0.5 + 0.5 * np.tanh(margin / 2)).astype(np.float32)
        return scores


def prompt_scorer(
    encoder: TextEncoder, positive: Sequence[str], negative: Sequence[str], temperature: float = _TEMPERATURE
) -> PromptScorer:
    """Return the scorer of two sets of prompts.

    encoder: text tower of the model whose image tower made the embeddings

    Raises:
        EncoderError: one side holds no prompt, or its prompts give no direction.
    """
    return PromptScorer(_mean_row(encoder, positive), _mean_row(encoder, negative), temperature)


def _mean_row(encoder: TextEncoder, prompts: Sequence[str]) -> F32:
    if not prompts or isinstance(prompts, str):
        raise EncoderError(f"a zero-shot score needs a list of prompts on either side, not {prompts!r}")
    mean = encoder.encode(list(prompts)).astype(np.float64).mean(axis=0)
    norm = float(np.linalg.norm(mean))
    if not norm > 0:
        raise EncoderError(f"{encoder.name} gives no direction for the prompts {list(prompts)!r}: change their words")
    row: F32 = (mean / norm).astype(np.float32)
    return row
