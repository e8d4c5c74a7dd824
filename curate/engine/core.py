"""The online engine: one micro-batch after the other is encoded, judged, and committed with the state it leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.encoders import ImageEncoder, Settings, TextEncoder
from curate.engine import bound, given, guard
from curate.engine.binding import bind_text_encoder, note_compute, text_encoder_name
from curate.engine.captioning import Captions
from curate.engine.decisions import HOLD, Decided, Judged, Pictures
from curate.engine.embedding import Embedder
from curate.engine.gate import HELD, Gate, Rows
from curate.engine.guard import Guard
from curate.engine.mend import Mended
from curate.engine.prepare import Prepared
from curate.engine.restore import load_index, restore
from curate.engine.rows import batch_table
from curate.engine.state import SourceState, State
from curate.hashing import alike, hash_words, look_alike_epsilon
from curate.neighbors import Alike, KeptIndex
from curate.pool import Pool, Writer, vectors
from curate.recipe import Recipe
from curate.scoring.statistics import Statistics
from curate_kernels.arrays import B1, F16, F32, U8
from curate_selectors.infogrowth import InfoGrowth
from curate_selectors.protocols import StreamSelector
from curate_selectors.types import Batch, Stage

if TYPE_CHECKING:
    from curate.engine.machines import Carried

_MOST_CLASSES = 10_000  # ids or free text in a label column are no classes


class Engine:
    """Everything between two commits: the pool, the kept set, the sums and the gates built from them."""

    def __init__(self, writer: Writer, pool: Pool, recipe: Recipe, state: State, encoder: ImageEncoder) -> None:
        self.writer, self.recipe, self.encoder = writer, recipe, encoder
        self.make_index: Callable[[float], KeptIndex] = KeptIndex  # of all that is kept
        self.load_text: Callable[[str, Settings], TextEncoder] | None = None  # None: in this process
        self.captions: Captions | None = None
        self.embedder: Embedder | Carried | None = None  # None: everything is encoded, nothing looked up
        self.open(pool, state)

    def open(self, pool: Pool, state: State) -> None:
        """Begin at a state of the pool, as if nothing had been done since."""
        self.pool, self.state = pool, state
        self.text_encoder: TextEncoder | None = None
        recipe = self.recipe
        self.index = KeptIndex(recipe.limits.memory_gb)
        self.held = KeptIndex(recipe.limits.memory_gb)  # what waits for the caption gate, free of duplicates
        self.gate = Gate()
        self.guard = Guard()
        self.shunned = Guard()  # what reviewers dropped
        self.mended = Mended()  # since the last commit
        self.sums = Statistics(keep=("pairs", "labels"))
        self.class_number = {name: i for i, name in enumerate(state.classes) if name}  # "": left by a takedown
        self._ready = False

    def ready(self) -> None:
        """Rebuild what a run works on; called before its first batch or checkpoint, so that a no-op stays cheap."""
        if not self._ready:
            restore(self)
            self.guard, self.shunned = guard.load(self), guard.dropped(self)
            self._ready = True

    def rebuild(self) -> None:
        """Make the indexes anew after a checkpoint, in the order in which a resumed run makes them."""
        self.index, self.held = (make(self.recipe.limits.memory_gb) for make in (self.make_index, KeptIndex))
        load_index(self, self.index, "decision = 'admit'")
        load_index(self, self.held, "decision = 'hold' AND counted")

    # Views of rows

    def columns(self, *names: str) -> list[str]:
        """Return column names for a scan, with those that `table_rows` reads."""
        views = ["image", "text"] if self.state.text else ["image"]
        return [*names, "caption", "label", *views, *(["row"] if self.mended else [])]

    def table_rows(self, batch: Any) -> tuple[F32, F32, B1, list[str | None]]:
        """Return image (b, d), text (b, t), has_text (b,) and labels of an Arrow batch or one-chunk table."""
        image = vectors(batch.column("image"), self.state.image.dim)
        text = np.zeros((image.shape[0], 0), dtype=np.float32)
        if self.state.text:
            text = vectors(batch.column("text"), self.state.text.dim)
        has_text = batch.column("caption").is_valid().to_numpy(zero_copy_only=False)
        labels = batch.column("label").to_pylist()
        if self.mended:
            self.mended.overlay(batch.column("row").to_numpy(), text, labels)
        return image, text, has_text, labels

    def features(self, image: F32) -> F32:
        """Return what the models read: square roots of non-negative features (Hellinger map), else the rows."""
        return np.sqrt(image) if self.encoder.nonnegative else image

    def gate_rows(self, image: F32, text: F32, has_text: B1, labels: Sequence[str | None], usable: B1) -> Rows:
        """Return the rows as the gates read them; unusable rows give them nothing to judge."""
        number = np.array([-1 if name is None else self.class_number.get(name, -1) for name in labels], dtype=np.int64)
        return Rows(
            self.features(image),
            text,
            has_text & usable,
            np.where(usable, number, -1),
        )

    # One batch

    def step(self, batch: Sequence[Prepared]) -> Any:
        """Encode, judge and commit one batch; return the Arrow table of its rows."""
        self.ready()
        judged = self._judge(batch)
        table = batch_table(self.state, self.gate, judged, self.embedder.beside(batch) if self.embedder else {})
        pairs, labels = self.count(
            Rows(
                judged.rows.image,
                judged.rows.text,
                judged.rows.has_text & judged.counted,
                np.where(judged.counted, judged.rows.label, -1),
            )
        )
        self._note_compute()
        state = self.state
        state.pairs += pairs
        state.labels += labels
        state.held += sum(decision == HOLD for decision, _ in judged.outcomes())
        state.rows += len(batch)
        state.batches += 1
        state.step += 1
        for arrival in (p.arrival for p in batch):
            source = arrival.source
            state.sources[source.id] = SourceState(source.root, source.kind, source.fingerprint, arrival.position)
        self.pool = self.writer.append(self.pool, table, state.as_dict())
        if self.embedder is not None:
            self.embedder.committed(table)
        return table

    def _note_compute(self) -> None:
        state = self.state
        note_compute(state, "images", state.image, self.encoder.compute)
        if state.text and self.text_encoder is not None:
            note_compute(state, "captions", state.text, self.text_encoder.compute)
        for name, encoder in (self.embedder.encoders if self.embedder else {}).items():
            if name in state.extra:
                note_compute(state, name, state.extra[name], encoder.compute)

    def _judge(self, batch: Sequence[Prepared]) -> Judged:
        image16 = self._encode_images(batch)
        text16, has_text = self.encode_captions(given.captions(batch, text_encoder_name(self.recipe)))
        image, text = image16.astype(np.float32), text16.astype(np.float32)
        embedded: B1 = np.asarray(image.any(axis=1))
        good = embedded & np.array([not p.reason for p in batch], dtype=np.bool_)
        labels = [p.arrival.sample.label for p in batch]
        self.number_classes([name for name, counts in zip(labels, good, strict=True) if counts])
        rows = self.gate_rows(image, text, has_text, labels, good)
        scores = self.gate.score(rows, np.zeros(len(batch), dtype=np.bool_))
        verdicts = self.gate.verdicts(rows, scores)
        pixels, epsilon = [p.pixel_hash for p in batch], self.state.image.epsilon
        leaks, shunned = (known.leaks(image, pixels, epsilon) for known in (self.guard, self.shunned))
        refusals = [
            _refusal(p, bool(there), leak, shun, verdict)
            for p, there, leak, shun, verdict in zip(batch, embedded, leaks, shunned, verdicts, strict=True)
        ]
        good &= np.array([not (leak or shun) for leak, shun in zip(leaks, shunned, strict=True)], dtype=np.bool_)
        refused = np.array([reason != "" for reason, _ in refusals], dtype=np.bool_)
        stage = np.where(embedded, np.where(refused, Stage.GATED, Stage.FREE), Stage.OUT).astype(np.uint8)
        pictures = Pictures(
            [p.arrival.uid for p in batch], [p.pixel_hash for p in batch], hash_words([p.phash for p in batch])
        )
        decided = self.decide(self.index, pictures, image, text, has_text, stage)
        counted = good & np.array([not twin for twin, _ in decided.twins], dtype=np.bool_)
        waiting = counted & np.array([reason == HELD for reason, _ in refusals], dtype=np.bool_)
        if waiting.any():  # of equal rows that are held back, one enters the sums
            stage = np.where(waiting, Stage.FREE, Stage.OUT).astype(np.uint8)
            new = self.decide(self.held, pictures, image, text, has_text, stage)
            counted &= ~waiting | new.decision.admitted
        return Judged(batch, image16, text16, rows, scores, decided, refusals, counted)

    def _encode_images(self, batch: Sequence[Prepared]) -> F16:
        """Return float16 unit rows (b, d); zero rows where there is no crop or no finite embedding."""
        if self.embedder is not None:
            return self.embedder.embed(batch, self.pool)["image"]
        have = [i for i, p in enumerate(batch) if p.crop is not None]
        crops: list[U8] = [p.crop for p in batch if p.crop is not None]
        image = np.zeros((len(batch), self.state.image.dim), dtype=np.float16)
        image[have] = self.encoder.encode(crops)
        return image

    def encode_captions(self, captions: Sequence[Any]) -> tuple[F16, B1]:
        """Return float16 unit rows (b, t) and which rows have a caption; the text encoder is loaded on first need.

        captions: texts, or where the pool's encoder is `precomputed` vectors; None for none
        """
        has_text = np.array([c is not None for c in captions], dtype=np.bool_)
        given = [c for c in captions if c is not None]
        if given and self.text_encoder is None:
            self.text_encoder = bind_text_encoder(self, given)
        text = np.zeros((len(captions), self.state.text.dim if self.state.text else 0), dtype=np.float16)
        if given and self.text_encoder is not None:
            text[has_text] = self.text_encoder.encode(given)
        return text, has_text

    def number_classes(self, labels: Sequence[str | None]) -> None:
        """Number new classes; with more than a label gate can judge, the rest stay without a number."""
        for name in labels:
            if name is not None and name not in self.class_number and len(self.state.classes) < _MOST_CLASSES:
                self.class_number[name] = len(self.state.classes)
                self.state.classes.append(name)

    def decide(
        self,
        index: KeptIndex,
        pictures: Pictures,
        image: F32,
        text: F32,
        has_text: B1,
        stage: U8,
        free: bool = False,
        apart: bool = False,
    ) -> Decided:
        """Judge rows against an index, in order, and add those that are admitted to it.

        free: a bounded kept set takes them without the bar that newcomers must reach
        apart: they duplicate nothing, however alike they are
        """
        uids, hashes = pictures.uids, pictures.hashes
        k, bits = self.recipe.gain.k, -1 if apart else self.recipe.dedup.phash
        eps = -1.0 if apart else self.state.image.epsilon
        eps_text = self.state.text.epsilon if self.state.text and self.recipe.dedup.match == "pair" else 2.0
        eps_alike = look_alike_epsilon(self.recipe.dedup.epsilon_phash, eps)
        hidden = (stage == Stage.OUT) | apart
        shown = ["" if out else pixel for out, pixel in zip(hidden, pictures.pixels, strict=True)]
        found = index.search(image, text, has_text, shown, k, eps, eps_text, Alike(hashes, bits, eps_alike))
        numbers: dict[str, int] = {}
        pixel = np.array([numbers.setdefault(p, len(numbers)) if p else -1 for p in shown], dtype=np.int64)
        batch = Batch(
            stage, image, text, has_text, pixel, alike(hashes, bits), bound.luck(uids),
            found.twin, found.top_image, found.top_text,
        )  # fmt: skip
        limit = bound.bar(self) if index is self.index and not free else (-np.inf, np.inf)
        selector: StreamSelector = InfoGrowth(
            k=k, epsilon=eps, epsilon_text=eps_text, epsilon_alike=eps_alike, bar=limit
        )
        decision = selector.decide(batch)
        twins = []
        for i, (kept, other) in enumerate(zip(found.twin.tolist(), decision.batch_twin.tolist(), strict=True)):
            if stage[i] == Stage.OUT or max(kept, other) < 0:
                twins.append(("", False))
            elif kept >= 0:
                twins.append((index.uids[kept], bool(found.exact[i])))
            else:
                twins.append((uids[other], bool(pixel[i] >= 0 and pixel[i] == pixel[other])))
        kept = len(index) + np.cumsum(decision.admitted) - decision.admitted
        new = np.flatnonzero(decision.admitted).tolist()
        pixels = [pictures.pixels[i] for i in new]
        index.add([uids[i] for i in new], image[new], text[new], has_text[new], pixels, hashes[new])
        return Decided(decision, twins, kept)

    def count(self, rows: Rows) -> tuple[int, int]:
        """Add rows to the sums and to the caption model; return how many pairs and labelled rows they held."""
        at = rows.has_text
        if at.any() and self.gate.pairs is not None:
            self.gate.pairs.add(*self.gate.pairs.project(rows.image[at], rows.text[at]))
        return self.sums.update(rows.image, rows.text, at, rows.label, len(self.state.classes))


def _refusal(p: Prepared, embedded: bool, leak: str, shun: str, verdict: str) -> tuple[str, str]:
    """Return (reason, detail) of what speaks against a row before duplicates: bytes, a leak, a review, the gates."""
    if not embedded or p.reason:
        return p.reason or "bad_embedding", p.detail
    if leak or shun:
        return (guard.REASON, leak) if leak else (guard.REVIEWED, shun)
    return verdict, p.detail
