"""The online engine: one micro-batch after the other is encoded, judged, and committed with the state it leads to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.encoders import ImageEncoder, TextEncoder
from curate.engine.binding import bind_text_encoder
from curate.engine.gate import HELD, SCORE_COLUMNS, Gate, Rows
from curate.engine.prepare import Prepared
from curate.engine.state import SourceState, State
from curate.errors import PoolError
from curate.neighbors import KeptIndex
from curate.pool import Pool, Writer, vectors
from curate.recipe import Recipe
from curate.scoring.moments import ClassMoments, PairMoments
from curate_kernels.arrays import B1, F16, F32, U8
from curate_selectors.infogrowth import InfoGrowth
from curate_selectors.types import Batch, Decision, Stage

ADMIT, REFUSE, HOLD = "admit", "refuse", "hold"
_KEPT = "decision = 'admit'"


class Engine:
    """Everything between two commits: the pool, the kept set, the sums and the gates built from them."""

    def __init__(self, writer: Writer, pool: Pool, recipe: Recipe, state: State, encoder: ImageEncoder) -> None:
        self.writer, self.pool, self.recipe, self.state, self.encoder = writer, pool, recipe, state, encoder
        self.text_encoder: TextEncoder | None = None
        self.index = KeptIndex()
        self.gate = Gate()
        self.pairs: PairMoments | None = None
        self.labels: ClassMoments | None = None
        self._restored = False
        self._class_at = {name: i for i, name in enumerate(state.classes)}

    # --- views of rows ---------------------------------------------------------------------------------------------

    def features(self, image: F32) -> F32:
        """Return what the models read: square roots of non-negative features (Hellinger map), else the rows."""
        return np.sqrt(image) if self.encoder.nonnegative else image

    def text_dim(self) -> int:
        """Return the number of caption dimensions, 0 while no caption was seen."""
        return self.state.text.dim if self.state.text else 0

    def table_rows(self, batch: Any) -> tuple[F32, F32, B1, list[str | None]]:
        """Return image (b, d), text (b, t), has_text (b,) and labels of an Arrow batch of the pool."""
        image = vectors(batch.column("image"), self.state.image.dim)
        has_text = np.array([c is not None for c in batch.column("caption").to_pylist()], dtype=np.bool_)
        text = np.zeros((image.shape[0], 0), dtype=np.float32)
        if self.state.text:
            text = vectors(batch.column("text"), self.state.text.dim)
        return image, text, has_text, batch.column("label").to_pylist()

    def columns(self, *names: str) -> list[str]:
        """Return column names for a scan, with the embeddings that the pool has."""
        views = ["image", "text"] if self.state.text else ["image"]
        return [*names, "caption", "label", *views]

    def gate_rows(self, image: F32, text: F32, has_text: B1, labels: Sequence[str | None], usable: B1) -> Rows:
        """Return the rows as the gates read them; unusable rows and gates that are off give nothing to judge."""
        clean = self.recipe.clean
        label = np.array([-1 if name is None else self._class_at.get(name, -1) for name in labels], dtype=np.int64)
        return Rows(
            self.features(image),
            text,
            has_text & usable & clean.captions,
            np.where(usable & clean.labels, label, -1),
        )

    # --- resuming --------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Rebuild the kept set from the pool, and the sums from the last checkpoint plus the batches after it.

        Called before the first batch or checkpoint of a run, so that a run that finds nothing new costs nothing.
        """
        if self._restored:
            return
        self._restored = True
        names = self.columns("uid", "pixel_hash")
        for batch in self.pool.scan(names, where=_KEPT):
            image, text, has_text, _ = self.table_rows(batch)
            pixels = batch.column("pixel_hash").to_pylist()
            self.index.add(batch.column("uid").to_pylist(), image, text, has_text, pixels)
        self._load_checkpoint()
        self.gate.warming = self._warming()
        done = self.state.checkpoint.batches if self.state.checkpoint else 0
        waiting: list[Any] = []
        for batch in self.pool.scan(self.columns("batch", "counted"), where=f"batch >= {done}"):
            waiting.append(batch)
            waiting = self._replay(waiting, last=False)
        self._replay(waiting, last=True)

    def _load_checkpoint(self) -> None:
        from curate.engine.checkpoint import load

        if self.state.checkpoint is not None:
            load(self, self.state.checkpoint)

    def _replay(self, waiting: list[Any], last: bool) -> list[Any]:
        """Add whole batches to the sums, in the portions in which they were added first; return what is incomplete."""
        import pyarrow as pa

        table = pa.Table.from_batches(waiting).combine_chunks() if waiting else None
        if table is None or not table.num_rows:
            return []
        numbers = table.column("batch").to_numpy()
        stops = [int(s) for s in np.flatnonzero(np.diff(numbers)) + 1] + ([table.num_rows] if last else [])
        start = 0
        for stop in stops:
            part = table.slice(start, stop - start).combine_chunks()
            image, text, has_text, labels = self.table_rows(part)
            counted = part.column("counted").to_numpy(zero_copy_only=False)
            self._count(self.gate_rows(image, text, has_text, labels, counted))
            start = stop
        return list(table.slice(start).to_batches())

    def _count(self, rows: Rows) -> tuple[int, int]:
        """Add rows to the sums and to the caption model; return how many pairs and labelled rows they held."""
        at, labelled = rows.has_text, rows.label >= 0
        if at.any():
            if self.pairs is None:
                self.pairs = PairMoments.zeros(rows.image.shape[1], rows.text.shape[1])
            self.pairs.add(rows.image[at], rows.text[at])
            if self.gate.pairs is not None:
                self.gate.pairs.add(*self.gate.pairs.project(rows.image[at], rows.text[at]))
        if labelled.any():
            if self.labels is None:
                self.labels = ClassMoments.zeros(rows.image.shape[1])
            self.labels.add(rows.image[labelled], rows.label[labelled], len(self.state.classes))
        return int(at.sum()), int(labelled.sum())

    def _warming(self) -> bool:
        return self.recipe.clean.captions and (self.state.checkpoint is None or self.state.checkpoint.pairs == 0)

    # --- one batch -------------------------------------------------------------------------------------------------

    def step(self, batch: Sequence[Prepared]) -> None:
        """Encode, judge and commit one batch."""
        self.restore()
        image = self._encode_images(batch)
        usable = np.array([not p.reason for p in batch]) & image.any(axis=1)
        captions = [p.arrival.sample.caption for p in batch]
        text, has_text = self._encode_captions(captions)
        labels = [p.arrival.sample.label for p in batch]
        for name in labels:
            if name is not None and name not in self._class_at:
                self._class_at[name] = len(self.state.classes)
                self.state.classes.append(name)
        rows = self.gate_rows(image.astype(np.float32), text.astype(np.float32), has_text, labels, usable)
        scores = self.gate.score(rows, np.zeros(len(batch), dtype=np.bool_))
        verdicts = self.gate.verdicts(rows, scores)
        stage = np.array([Stage.OUT if not u else Stage.GATED if v else Stage.FREE for u, v in zip(usable, verdicts, strict=True)])
        decided = self.decide(
            [p.arrival.uid for p in batch],
            [p.pixel_hash for p in batch],
            image.astype(np.float32),
            text.astype(np.float32),
            has_text,
            stage.astype(np.uint8),
        )
        refusals = [
            (p.reason or "bad_embedding", p.detail or "the encoder gave NaN or zero") if not u else (v, "")
            for p, u, v in zip(batch, usable, verdicts, strict=True)
        ]
        counted = usable & np.array([not twin for twin, _ in decided.twins], dtype=np.bool_)
        self._commit(batch, image, text, rows, scores, decided, refusals, usable, counted)

    def _encode_images(self, batch: Sequence[Prepared]) -> F16:
        """Return float16 unit rows (b, d); zero rows where there is no crop or no finite embedding."""
        have = [i for i, p in enumerate(batch) if p.crop is not None]
        crops: list[U8] = [p.crop for p in batch if p.crop is not None]
        image = np.zeros((len(batch), self.state.image.dim), dtype=np.float16)
        image[have] = np.nan_to_num(self.encoder.encode(crops), nan=0.0, posinf=0.0, neginf=0.0)
        return image

    def _encode_captions(self, captions: Sequence[str | None]) -> tuple[F16, B1]:
        """Return float16 unit rows (b, t) and which rows have a caption; the text encoder is loaded on first need."""
        has_text = np.array([c is not None for c in captions], dtype=np.bool_)
        if has_text.any():
            if self.text_encoder is None:
                self.text_encoder = bind_text_encoder(self, [c for c in captions if c is not None])
            text = np.zeros((len(captions), self.text_encoder.dim), dtype=np.float16)
            text[has_text] = np.nan_to_num(self.text_encoder.encode([c for c in captions if c is not None]))
            return text, has_text
        return np.zeros((len(captions), self.text_dim()), dtype=np.float16), has_text

    def decide(
        self, uids: Sequence[str], pixels: Sequence[str], image: F32, text: F32, has_text: B1, stage: U8
    ) -> Decided:
        """Judge rows against the kept set, in order, and keep those that are admitted."""
        eps = self.state.image.epsilon
        eps_text = self.state.text.epsilon if self.state.text and self.recipe.dedup.match == "pair" else 2.0
        k = self.recipe.gain.k
        out = stage == Stage.OUT
        searched = [("" if gone else pixel) for gone, pixel in zip(out, pixels, strict=True)]
        found = self.index.search(image, text, has_text, searched, k, eps, eps_text)
        numbers: dict[str, int] = {}
        pixel = np.array([numbers.setdefault(p, len(numbers)) if p else -1 for p in searched], dtype=np.int64)
        batch = Batch(stage, image, text, has_text, pixel, found.twin, found.top_image, found.top_text)
        decision = InfoGrowth(k=k, epsilon=eps, epsilon_text=eps_text).decide(batch)
        twins = []
        for i in range(len(uids)):
            j = int(decision.batch_twin[i])
            if found.twin[i] >= 0 and not out[i]:
                twins.append((self.index.uids[int(found.twin[i])], bool(found.exact[i])))
            else:
                twins.append((uids[j], bool(pixel[i] >= 0 and pixel[i] == pixel[j])) if j >= 0 else ("", False))
        kept = np.flatnonzero(decision.admitted)
        self.index.add([uids[i] for i in kept], image[kept], text[kept], has_text[kept], [pixels[i] for i in kept])
        return Decided(decision, twins)

    def _commit(
        self,
        batch: Sequence[Prepared],
        image: F16,
        text: F16,
        rows: Rows,
        scores: dict[str, F32],
        decided: Decided,
        refusals: list[tuple[str, str]],
        usable: B1,
        counted: B1,
    ) -> None:
        from curate.engine.rows import batch_table

        outcomes = [decided.outcome(i, refusal) for i, (refusal, _) in enumerate(refusals)]
        table = batch_table(self, batch, image, text, rows, scores, decided, outcomes, refusals, usable, counted)
        state = self.state
        pairs, labels = self._count(
            Rows(rows.image, rows.text, rows.has_text & counted, np.where(counted, rows.label, -1))
        )
        state.pairs += pairs
        state.labels += labels
        state.held += sum(decision == HOLD for decision, _ in outcomes)
        state.rows += len(batch)
        state.batches += 1
        state.step += 1
        for p in batch:
            source = p.arrival.source
            state.sources[source.id] = SourceState(source.root, source.kind, source.fingerprint, p.arrival.position)
        self.pool = self.writer.append(self.pool, table, state.as_dict())


class Decided:
    """A decision with its duplicates resolved: twins[i] = (uid that row i duplicates or "", equal pixels)."""

    def __init__(self, decision: Decision, twins: list[tuple[str, bool]]) -> None:
        self.decision = decision
        self.twins = twins

    def outcome(self, i: int, refusal: str) -> tuple[str, str]:
        """Return (decision, reason) of row i, where `refusal` is what spoke against it before duplicates."""
        twin, exact = self.twins[i]
        if self.decision.admitted[i]:
            return ADMIT, "admitted"
        if twin:
            return REFUSE, "exact_duplicate" if exact else "near_duplicate"
        if refusal == HELD:
            return HOLD, HELD
        if not refusal:
            raise PoolError("a row was neither admitted nor refused; this is a bug, please report it")
        return REFUSE, refusal


def arrival_history(outcome: tuple[str, str], scores: dict[str, F32], thresholds: dict[str, float], i: int, batch: int) -> str:
    """Return the first entry of a row's history, as JSON: what was decided at arrival, by which scores and thresholds."""
    entry: dict[str, Any] = {"batch": batch, "decision": outcome[0], "reason": outcome[1], "thresholds": thresholds}
    entry |= {
        name: round(float(scores[name][i]), 4)
        for name in ("pvi", "s1_label")
        if name in SCORE_COLUMNS and np.isfinite(scores[name][i])
    }
    return json.dumps([entry])
