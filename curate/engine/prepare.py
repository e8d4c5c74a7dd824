"""Decoding ahead: while one batch is encoded, the next is read, decoded and measured in threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from curate.cleaning import Quality, measure, refusal
from curate.encoders import ImageEncoder
from curate.engine.arrivals import Arrival
from curate.errors import DecodeError
from curate.hashing import phash
from curate.images import decode, pixel_hash
from curate.recipe import Recipe
from curate_kernels.arrays import U8

_THREADS = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """An arrival with what its bytes gave. `crop` is the encoder's input, None where the bytes gave no image.

    reason: why the row is refused already, or ""; detail: the same in words
    """

    arrival: Arrival
    reason: str = ""
    detail: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    pixel_hash: str = ""
    quality: Quality | None = None
    crop: U8 | None = None
    phash: str = ""


def prepare(arrival: Arrival, encoder: ImageEncoder, recipe: Recipe) -> Prepared:
    """Decode one arrival, hash its pixels, measure its quality, and cut the encoder's input."""
    if arrival.sample.problem:
        return Prepared(arrival, arrival.sample.problem)
    try:
        image = decode(arrival.sample.data, recipe.limits.max_pixels)
    except DecodeError as error:
        return Prepared(arrival, error.reason, str(error))
    quality = measure(image.pixels)
    return Prepared(
        arrival,
        reason=refusal(image.width, image.height, quality, recipe.clean),
        width=image.width,
        height=image.height,
        format=image.format,
        pixel_hash=pixel_hash(image.pixels),
        phash=f"{phash(image.pixels):016x}",
        quality=quality,
        crop=encoder.prepare(image.pixels),
    )


def prepared_batches(
    batches: Iterator[list[Arrival]], encoder: ImageEncoder, recipe: Recipe
) -> Iterator[list[Prepared]]:
    """Yield each batch prepared, in order, one batch ahead of the consumer."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="curate-decode") as pool:

        def submit() -> list[Future[Prepared]]:
            return [pool.submit(prepare, arrival, encoder, recipe) for arrival in next(batches, [])]

        ahead = submit()
        while ahead:
            current, ahead = ahead, submit()
            yield [future.result() for future in current]
