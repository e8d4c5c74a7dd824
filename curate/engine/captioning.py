"""Captions of refused images, made in a thread beside the stream, which never waits for them.

They are kept in POOL/captions/<model fingerprint>.jsonl by the hash of the image's bytes, so that a killed run captions
nothing twice; only the last checkpoint of a run applies them, so that decisions do not depend on how fast they came.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.encoders.captioner import Captioner, load_captioner
from curate.engine.state import SourceState
from curate.pool import CAPTIONS
from curate.remote import Place
from curate.stored import PLACE, stored_pixels

if TYPE_CHECKING:
    from curate.engine.core import Engine

_REFUSED = "embedded AND reason = 'caption_mismatch'"


class Captions:
    """What a captioner says about images, made in the background in full batches, or at once for who waits."""

    def __init__(self, captioner: Captioner, folder: Place, max_pixels: int) -> None:
        self.name = f"captioner {captioner.fingerprint}"
        self._captioner, self._max_pixels = captioner, max_pixels
        # An object store appends to nothing; there a killed run captions again.
        self._file = folder / f"{captioner.fingerprint}.jsonl" if isinstance(folder, Path) else None
        self._made = _read(self._file)
        self._asked: set[str] = set(self._made)
        self._pending: list[dict[str, Any]] = []
        self._busy = self._waited = self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="curate-captions", daemon=True)
        self._thread.start()

    def offer(self, rows: Iterable[Mapping[str, Any]], sources: Mapping[str, SourceState]) -> None:
        """Ask for captions; rows: PLACE by name. What was asked for before is passed over."""
        with self._changed:
            for row in rows:
                if row["sha256"] not in self._asked:
                    self._asked.add(row["sha256"])
                    self._pending.append({**{name: row[name] for name in PLACE}, "root": sources[row["source"]].root})
            self._changed.notify_all()

    def wait(self, rows: Iterable[Mapping[str, Any]], sources: Mapping[str, SourceState]) -> dict[str, str]:
        """Return {sha256: caption} once all rows are captioned; those whose file is gone or changed are left out.

        Raises what the captioner raised in its thread.
        """
        self.offer(rows, sources)
        with self._changed:
            self._waited = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or not (self._pending or self._busy))
            self._waited = False
            if self._error is not None:
                raise self._error
            return dict(self._made)

    def close(self) -> None:
        """End the thread after the batch in progress."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            while batch := self._next():
                self._caption(batch)
        except BaseException as error:  # raised where the captions are waited for
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> list[dict[str, Any]]:
        """Return the next rows to caption, once there is a batch of them or somebody waits; none at the end."""
        size = self._captioner.batch
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._stopped or len(self._pending) >= size or (self._waited and self._pending)
            )
            if self._stopped:
                return []
            batch, self._pending = self._pending[:size], self._pending[size:]
            self._busy = True
            return batch

    def _caption(self, batch: list[dict[str, Any]]) -> None:
        shown = [next(stored_pixels([row], {row["source"]: row["root"]}, self._max_pixels)) for row in batch]
        there = [(row["sha256"], pixels) for row, pixels in zip(batch, shown, strict=True) if pixels is not None]
        said = self._captioner.caption([pixels for _, pixels in there])
        made = {sha256: caption for (sha256, _), caption in zip(there, said, strict=True)}
        if self._file is not None:
            self._file.parent.mkdir(exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"sha256": key, "caption": value}) + "\n" for key, value in made.items())
        with self._changed:
            self._made |= made


def _read(file: Path | None) -> dict[str, str]:
    """Return the captions of a file; a line that was cut off by a kill is passed over."""
    made = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file and file.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        made[row["sha256"]] = row["caption"]
    return made


def opened(engine: Engine) -> Captions:
    """Return the captions of an engine's recipe; the model is loaded at the first call."""
    if engine.captions is None:
        captioner = load_captioner(engine.recipe.mend.captioner)
        engine.captions = Captions(captioner, engine.writer.path / CAPTIONS, engine.recipe.limits.max_pixels)
    return engine.captions


def offer(engine: Engine, table: Any = None) -> None:
    """Ask for captions of what the caption gate refused: of a batch's Arrow table, or of the pool."""
    if not (engine.recipe.mend.captioner and engine.recipe.clean.captions):
        return
    captions = opened(engine)
    if table is None:
        rows = engine.pool.frame(PLACE, where=_REFUSED).to_dicts()
    else:
        rows = [row for row in table.select([*PLACE, "reason"]).to_pylist() if row["reason"] == "caption_mismatch"]
    captions.offer(rows, engine.state.sources)


def close(engine: Engine) -> None:
    """End the thread, if there is one."""
    if engine.captions is not None:
        engine.captions.close()
        engine.captions = None
