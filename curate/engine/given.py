"""Embeddings that the sources give: no image is decoded, and nothing is encoded."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

from curate.encoders.precomputed import features_name, is_precomputed, precomputed_name
from curate.engine.arrivals import Arrival
from curate.engine.prepare import Prepared
from curate.engine.state import Encoder
from curate.errors import PoolMismatchError, UsageError
from curate.recipe import EncodeTable, Recipe, recipe_from_dict
from curate.samples import EmbeddingSource, Features, Source

Options = dict[str, dict[str, Any]]
_UNSAID = EncodeTable().image


def settle(
    opened: Sequence[Source], given: Recipe | None, options: Options, state: dict[str, Any] | None
) -> tuple[list[Source], Options]:
    """Return the sources, each with the features that are asked for, and the options with the encoders that follow.

    Sources that give embeddings decide the encoder of a new pool, and must have that of an old one.
    given, options: what this run asks; state: of the pool, None where it is to be made

    Raises UsageError where sources of images and of embeddings are mixed, or an encoder is asked for beside
    embeddings; PoolMismatchError where the pool has another one; SourceError where a source has not what is asked for.
    """
    asked = (given or Recipe()).replace(options).encode
    own = recipe_from_dict(state["recipe"]).encode if state else None
    giving = [source for source in opened if isinstance(source, EmbeddingSource)]
    if not giving:
        image = asked.image if own is None or asked.image != _UNSAID else own.image
        if opened and is_precomputed(image):
            raise UsageError(
                f"{opened[0].id} gives images, and the encoder is {image}: the embeddings must be given, too"
            )
        return list(opened), options
    if len(giving) < len(opened):
        images = next(source for source in opened if source not in giving)
        raise UsageError(f"{giving[0].id} gives embeddings and {images.id} images: grow a pool for each")
    said = asked.image != _UNSAID or "image" in options.get("encode", {})
    if said and not is_precomputed(asked.image):
        raise UsageError(
            f"{giving[0].id} gives embeddings, which {asked.image} cannot make of it: leave the encoder out, or say"
            " what they are: precomputed:NAME"
        )
    name = features_name(asked.image) or _set_of(giving, own)
    named = [_named(source, name) for source in giving]
    features = _shared(named)
    if state is not None:
        _check(named[0], features, state)
    encode = {"image": precomputed_name(features.name)}
    if not asked.text and own is not None:
        encode["text"] = own.text
        if features.text and own.text and not is_precomputed(own.text):
            raise PoolMismatchError(
                f"the pool has its captions encoded by {own.text}, and {giving[0].id} gives vectors of them: leave"
                " these out, or grow a new pool"
            )
    elif not asked.text and not features.text:
        encode["text"] = _UNSAID  # captions without vectors are encoded
    return list(named), {**options, "encode": {**options.get("encode", {}), **encode}}


def _set_of(giving: Sequence[EmbeddingSource], own: EncodeTable | None) -> str:
    """Return the name of the pool's features where every source names its own, so that it is asked for the same."""
    return features_name(own.image) if own and all(source.features.name for source in giving) else ""


def _named(source: EmbeddingSource, name: str) -> EmbeddingSource:
    return source.named(name) if name and name != source.features.name else source


def image_dim(opened: Sequence[Source]) -> int:
    """Return the dimension of the image embeddings that sources give, 0 where they give none."""
    return next((source.features.image for source in opened if isinstance(source, EmbeddingSource)), 0)


def of_pool(opened: Sequence[Source], bound: Encoder) -> list[Source]:
    """Return an evaluation set's sources with the features that a pool is bound to; nameless ones count as these.

    Raises PoolMismatchError where one has others, or images.
    """
    found: list[Source] = []
    for source in opened:
        if not isinstance(source, EmbeddingSource):
            raise PoolMismatchError(f"{source.id} gives images, and the pool holds embeddings that it was given")
        own = _named(source, features_name(bound.name))
        if own.features.image != bound.dim:
            raise PoolMismatchError(
                f"the pool holds {bound.name} in {bound.dim} dimensions; {own.id} {told(own.features)}"
            )
        found.append(own)
    return found


def _shared(sources: Sequence[EmbeddingSource]) -> Features:
    """Return the features of all sources. Raises UsageError where they differ."""
    first = sources[0]
    for source in sources:
        if source.features != first.features:
            raise UsageError(
                f"{first.id} gives {told(first.features)}, and {source.id} {told(source.features)}: one pool holds"
                " embeddings of one kind"
            )
    return first.features


def told(features: Features) -> str:
    """Return what features are, in words."""
    texts = f"captions in {features.text}" if features.text else "no captions"
    return f"{features.name or 'nameless'} embeddings (images in {features.image} dimensions, {texts})"


def _check(source: EmbeddingSource, features: Features, state: dict[str, Any]) -> None:
    """Raise PoolMismatchError unless a pool holds features of this name and these dimensions."""
    image, text = state["image"], state["text"]
    found = (precomputed_name(features.name), features.image)
    texts = text is None or not is_precomputed(text["name"]) or features.text in (0, text["dim"])
    if found == (image["name"], image["dim"]) and texts:
        return
    dims = f"{image['dim']} dimensions" + (f", captions {text['name']} in {text['dim']}" if text else "")
    advice = "grow a new pool for it"
    if not features.name and is_precomputed(image["name"]) and features.image == image["dim"]:
        advice = f"if they are of the same encoder, say so with --encoder {image['name']}"
    raise PoolMismatchError(f"the pool holds {image['name']} in {dims}; {source.id} gives {told(features)}: {advice}")


def prepared(batches: Iterable[Sequence[Arrival]]) -> Generator[list[Prepared], None, None]:
    """Yield batches of rows that are embedded already. Pixels are not there to be hashed or measured.

    Equal SHA-256 digests of the images, as the source tells them, are equal pixels.
    """
    for batch in batches:
        yield [_prepared(arrival) for arrival in batch]


def _prepared(arrival: Arrival) -> Prepared:
    embedded, problem = arrival.sample.embedded, arrival.sample.problem
    assert embedded is not None
    return Prepared(
        arrival=arrival,
        reason=problem,
        detail="its vector, or its caption's, is zero or not finite" if problem == "bad_embedding" else "",
        width=embedded.width,
        height=embedded.height,
        pixel_hash="" if problem else embedded.sha256,
        crop=None if problem else embedded.image,  # type: ignore[arg-type]
    )


def captions(batch: Sequence[Prepared], encoder: str) -> list[Any]:
    """Return what the text encoder of this name is to encode: captions, or the vectors given of them; None for none."""
    if not is_precomputed(encoder):
        return [p.arrival.sample.caption for p in batch]
    samples = [p.arrival.sample for p in batch]
    return [s.caption if s.embedded is None or s.embedded.text is None else s.embedded.text for s in samples]
