"""Learned scorers of stored embeddings: linear heads and small networks, such as aesthetic and NSFW heads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import erf, expit, softmax

from curate.errors import UsageError
from curate_kernels.arrays import F32

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": lambda x: x * 0.5 * (1.0 + erf(x / np.sqrt(2.0))),
    "silu": lambda x: x * expit(x),
    "tanh": np.tanh,
}
OUTPUTS: dict[str, Callable[[Any], Any]] = {
    "none": lambda x: x,
    "sigmoid": expit,
    "softmax": lambda x: softmax(x, axis=1),
}


@dataclass(frozen=True, slots=True)
class Head:
    """Layers y = Wx + b with one activation between them, and one number of the last as the score.

    weights: (out, in) float32 each; biases: (out,) float32 each; activation: a key of ACTIVATIONS
    output: a key of OUTPUTS, over the last layer; column: which of its numbers is the score
    High means what the head was trained for: beautiful for an aesthetic head, not safe for an NSFW head.
    """

    weights: tuple[F32, ...]
    biases: tuple[F32, ...]
    activation: str = "none"
    output: str = "none"
    column: int = 0

    @property
    def dim(self) -> int:
        """Dimensions of the embeddings that it reads."""
        return int(self.weights[0].shape[1])

    def score(self, x: F32) -> F32:
        """Return (n,) float32 scores of embeddings x (n, d) float32; a zero row is scored like any other.

        Raises:
            UsageError: x has not the dimensions of the head.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise UsageError(
                f"the head reads {self.dim} dimensions, the embeddings have shape {x.shape}: use its encoder"
            )
        between = ACTIVATIONS[self.activation]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = (between(x) if i else x) @ weight.T + bias
        scores: F32 = OUTPUTS[self.output](x)[:, self.column].astype(np.float32)
        return scores


def read_head(path: str | Path, *, activation: str = "none", output: str = "none", column: int = 0) -> Head:
    """Return the head of a safetensors file; nothing in it is executed.

    Raises:
        UsageError: the file is missing or no safetensors file, or its tensors are no head (`make_head`).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (
        OSError,
        SafetensorError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # the last three: a number type that numpy lacks
        raise UsageError(
            f"{path} cannot be read as safetensors with numpy's number types ({type(error).__name__}: {error}); "
            "convert it with safetensors.torch.save_file, in float32"
        ) from error
    return make_head(tensors, activation=activation, output=output, column=column, name=str(path))


def make_head(
    tensors: Mapping[str, Any],
    *,
    activation: str = "none",
    output: str = "none",
    column: int = 0,
    name: str = "the head",
) -> Head:
    """Return the head of named tensors: `weight` and `bias`, or `0.weight`, `0.bias`, `2.weight` … under any prefix.

    Layers are taken in the order of their numbers; a layer without bias adds nothing.

    Raises:
        UsageError: a tensor has another name or shape, is not finite, or two layers do not fit; an unknown activation
            or output, or no such column.
    """
    _check_choice("activation", activation, ACTIVATIONS)
    _check_choice("output", output, OUTPUTS)
    layers = sorted((key[: -len("weight")] for key in tensors if re.search(r"(^|\.)weight$", key)), key=_natural)
    known = {layer + part for layer in layers for part in ("weight", "bias")}
    if not layers or set(tensors) - known:
        odd = ", ".join(sorted(set(tensors) - known)[:3]) or "nothing"
        raise UsageError(f"{name} holds {odd}, where weight and bias, or 0.weight, 0.bias, 2.weight … are expected")
    weights = tuple(np.asarray(tensors[f"{layer}weight"], dtype=np.float32) for layer in layers)
    biases = tuple(
        np.asarray(tensors.get(f"{layer}bias", np.zeros(len(weight))), dtype=np.float32)
        for layer, weight in zip(layers, weights, strict=True)
    )
    _check_shapes(name, layers, weights, biases)
    if not 0 <= column < weights[-1].shape[0]:
        raise UsageError(
            f"{name} gives {weights[-1].shape[0]} numbers; column {column} is none of 0 … {len(weights[-1]) - 1}"
        )
    return Head(weights, biases, activation, output, column)


def _check_choice(what: str, value: str, allowed: Mapping[str, Any]) -> None:
    if value not in allowed:
        raise UsageError(f"unknown {what} {value!r} of a head: use one of {', '.join(allowed)}")


def _check_shapes(name: str, layers: list[str], weights: tuple[F32, ...], biases: tuple[F32, ...]) -> None:
    width = -1
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        fits = weight.ndim == 2 and weight.size and bias.shape == weight.shape[:1] and width in {-1, weight.shape[1]}
        if not fits:
            raise UsageError(
                f"{name}: {layer}weight has shape {weight.shape}, its bias {bias.shape}, after a layer of width {width}"
                "; (out, in), (out,) and equal widths are needed"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise UsageError(f"{name}: layer {layer}weight or its bias holds NaN or infinity")
        width = weight.shape[0]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]
