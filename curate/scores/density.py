"""Density, novelty and closeness to a target set, measured against the kept samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from curate.errors import UsageError
from curate.scores.rows import Rows, by_tile
from curate.scores.summed import Extra, InParts, Over, counted_in, merged, summed
from curate.scoring import diversity, target
from curate.scoring.gaussian import pair_sums
from curate.scoring.nearest import nearest
from curate.scoring.race import Race
from curate_kernels.arrays import B1, F32, F64

_SAMPLE = 16_384  # kept samples that a sketch's centre is taken from


def _around(kept: F32, hashes: int, bits: int, seed: int) -> Race:
    return Race.around(kept[:: -(-kept.shape[0] // _SAMPLE)], hashes, bits, seed)


def _kept(rows: Rows) -> F32:
    kept = rows.images()[rows.kept & rows.valid]
    _some(kept.shape[0])
    return kept


def _some(kept: int) -> None:
    if not kept:
        raise UsageError("no sample is kept, so there is nothing to measure against")


def _others(rows: Rows, kept: int | None = None) -> F64:
    """Return how many kept samples there are beside each valid one, at least 1; kept: where rows are a part of all."""
    at = rows.valid
    total = int((rows.kept & at).sum()) if kept is None else kept
    others: F64 = np.maximum(float(total) - rows.kept[at].astype(np.float64), 1.0)
    return others


def _kept_rows(rows: Rows, _: Extra) -> dict[str, B1]:
    return {"kept": rows.kept & rows.valid}


def _counters(race: Race, rows: Rows, _: Extra) -> dict[str, F64]:
    """Return the counters of a part's kept rows; race: an empty sketch."""
    own = Race.from_arrays(race.arrays() | {"counts": np.zeros_like(race.counts)})
    own.add(rows.images()[rows.kept & rows.valid])
    return {"counts": own.counts}


def _density(race: Race, kept: int, rows: Rows, _: Extra) -> dict[str, F32]:
    return {"density": _sketched(race, rows, _others(rows, kept))}


def _sketched(race: Race, rows: Rows, others: F64) -> F32:
    at = rows.valid
    return rows.fill((race.query(rows.images()[at]) - rows.kept[at]) / others, at)


def _kept_sums(rows: Rows, _: Extra) -> dict[str, Any]:
    """Return the sums of a part's kept rows, and which they are."""
    seen = rows.kept & rows.valid
    return {"seen": seen, **summed(rows.images(), seen).arrays()}


def _near(rows: Rows, k: int) -> F32:
    """Return the similarities (valid, k) to the nearest kept samples other than the row itself, padding -inf."""
    at, kept = rows.valid, _kept(rows)
    most = min(k, kept.shape[0])
    image = rows.images()[at]
    inside = rows.kept[at]
    out = np.full((image.shape[0], k), -np.inf, dtype=np.float32)
    out[inside, :most], _ = nearest(kept, k=most, exclude_self=True)
    if not inside.all():
        out[~inside, :most], _ = nearest(kept, image[~inside], k=most)
    return out


@dataclass(frozen=True)
class Density:
    """hashes, bits: size of the sketch; its error falls with 1 / √hashes; seed."""

    hashes: int = 1000
    bits: int = 8
    seed: int = 0

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the sketched density of each sample among the kept ones, itself apart."""
        kept = _kept(rows)
        race = _around(kept, self.hashes, self.bits, self.seed)
        race.add(kept)
        return {"density": _sketched(race, rows, _others(rows))}

    def in_parts(self, over: Over) -> InParts:
        """Return the score fitted over all parts: counters are whole numbers, so the sketch is that of one process."""
        masks = [part["kept"].astype(np.bool_) for part in over.each(_kept_rows)]
        kept = counted_in(masks)
        _some(kept)
        centre = over.take(masks, np.arange(kept)[:: -(-kept // _SAMPLE)]).images()
        race = Race.around(centre, self.hashes, self.bits, self.seed)
        for part in over.each(partial(_counters, race)):
            race.counts += part["counts"]
        return InParts(partial(_density, race, kept), None, ("density",))


@dataclass(frozen=True)
class KernelDensity:
    """bandwidth: of the Gaussian, 0 for the median distance."""

    bandwidth: float = 0.0

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the exact kernel density of each sample among the kept ones, itself apart."""
        from curate.scoring.density import kde, median_distance

        kept, at = _kept(rows), rows.valid
        width = self.bandwidth or median_distance(kept)
        if not width > 0:
            raise UsageError(
                f"bandwidth is {self.bandwidth:g} and the {kept.shape[0]} kept samples have a median distance of 0;"
                " set a bandwidth above 0"
            )
        if at.sum() == kept.shape[0]:
            mass = kde(kept, bandwidth=width, exclude_self=True)
        else:
            mass = np.maximum(kde(kept, rows.images()[at], bandwidth=width) - rows.kept[at], 0.0)  # rounding
        return {"density_kde": rows.fill(mass / _others(rows), at)}


@dataclass(frozen=True)
class NeighborDensity:
    """k: neighbours."""

    k: int = 10

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the mean cosine to the k nearest other kept samples; -1 where there is none."""
        from curate.scoring.density import knn_density

        return {"density_knn": rows.fill(knn_density(_near(rows, self.k)), rows.valid)}


@dataclass(frozen=True)
class Novelty:
    """Distance to the nearest other kept sample."""

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return 1 - cosine to the nearest other kept sample; 1 where there is none."""
        near = _near(rows, 1)[:, 0]
        return {"novelty": rows.fill(np.where(np.isfinite(near), np.clip(1.0 - near, 0.0, 2.0), 1.0), rows.valid)}


@dataclass(frozen=True)
class Leverage:
    """ridge: σ² in units of the kept samples' mean eigenvalue."""

    ridge: float = 0.01

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return ridge leverage and log-det gain; of kept samples against the others."""
        kept = _kept(rows)
        return _leverage(self.ridge, pair_sums(kept, kept[:, :0]).xx, rows, {})

    def in_parts(self, over: Over) -> InParts:
        """Return the score fitted over all parts."""
        sums, masks = merged(over.each(_kept_sums))
        _some(counted_in(masks))
        assert sums.rows is not None
        return InParts(partial(_leverage, self.ridge, sums.rows.xx), None, ("leverage", "logdet_gain"))


def _leverage(share: float, gram: F64, rows: Rows, _: Extra) -> dict[str, F32]:
    """Return both columns; share: ridge in units of the mean eigenvalue of gram, the sums over the kept samples."""
    ridge = share * float(np.trace(gram)) / gram.shape[0]
    out = {name: np.full(rows.n, np.nan, dtype=np.float32) for name in ("leverage", "logdet_gain")}
    for inside in (True, False):
        at = rows.valid & (rows.kept == inside)
        if at.any():
            value = diversity.ridge_leverage(rows.images()[at], gram, ridge, inside)
            out["leverage"][at], out["logdet_gain"][at] = value, np.log1p(value)
    return out


@dataclass(frozen=True)
class NormSim:
    """2-norm and maximum of the similarities to a target set."""

    by_row: ClassVar[bool] = True

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return both norms."""
        wanted, at = rows.wanted().images(), rows.valid
        image = rows.images()[at]
        return {
            "normsim_2": rows.fill(target.normsim_2(image, wanted), at),
            "normsim_inf": rows.fill(target.normsim_inf(image, wanted), at),
        }


@dataclass(frozen=True)
class Vas:
    """Variance alignment with the target set's second moments."""

    by_row: ClassVar[bool] = True

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return f' Σ_target f."""
        wanted = rows.wanted().images()
        gram = pair_sums(wanted, wanted[:, :0]).xx
        return {"vas": rows.fill(target.vas(rows.images()[rows.valid], gram, wanted.shape[0]), rows.valid)}


@dataclass(frozen=True)
class Importance:
    """hashes, bits, seed: of the two sketches."""

    hashes: int = 1000
    bits: int = 8
    seed: int = 0

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return log(p_target / p_kept) at each sample."""
        kept, wanted, at = _kept(rows), rows.wanted().images(), rows.valid
        raw = _around(kept, self.hashes, self.bits, self.seed)
        aim = Race(raw.centre, self.hashes, self.bits, self.seed, raw.offset)
        raw.add(kept)
        aim.add(wanted)
        return by_tile(at, lambda part: {"importance": target.importance(rows.images()[part], aim, raw)})
