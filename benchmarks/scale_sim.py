"""The path of online growth to a billion rows, simulated: index over owners, decisions in one driver, commits.

    python -m benchmarks.scale_sim

A discrete simulation with service times that were measured, at sizes where they were: a batch is looked up in the
lists of the kept rows (coarse centres in the driver, rows with owners, two rounds), decided row by row, committed,
and what it kept joins the lists. The next batch's queries wait for that, as decisions are those of one process;
only its coarse products are made ahead. Prints rows a second, latency of a batch, memory, and what takes the time,
by rows kept and number of owners. With one core and no network it gives 1,615 s for the run to 1,024,000 rows,
which took 1,742 s.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

# Seconds, and where each was measured: two shared cores of an AMD EPYC with AVX-512; docs/scale.md tells how.
DIM, TEXT = 512, 384  # numbers of an image's and a caption's embedding: benchmarks/stream.py
KEPT = 0.85  # of the rows that come: 871,950 of 1,024,000 (benchmarks/README.md)
LISTS, READ = 5.0, 24.0  # lists, and rows read for a query, per square root of rows kept: curate/neighbors
COARSE = 11.5e-9  # a query's product with a centre: 62 us with 5,000, 541 us with 50,000
QUERY = (14e-6, 0.319e-6)  # the rest of a search, fixed and per root of rows: 220 us at 300,000, 390 us at 1,000,000
JOIN = 9.0e-9  # a joining row and a centre: 28 us with 5,000, 441 us with 50,000
CODE = 22e-6  # the rest of joining: 50 us at 1,000,000
DECIDE = 0.70e-3  # of a row's 1.70 ms in a run to 1,024,000: less searches .60, joins .10, commits .06, checkpoints .24
CHECKPOINT = 0.24e-3  # 14 % of 1.70 ms; their number is logarithmic, so a row's share does not grow
TRAIN = 36.0 / 786_432**1.5  # core seconds for new lists, by rows^1.5: 36 s at 786,432
COMMIT = (9e-3, 6e-6, 1.6e-6)  # fixed; a row: 25 ms for 4,096; a fragment: 3.0 ms to open 1,000, 6.7 ms 4,000
FRAGMENT = 65_536  # rows of a fragment: curate/pool/writer.py
CALL = (9e-3, 0.27e-3)  # an actor's answer over loopback; the driver's own time a call
# Assumed, as no such machine was at hand:
NETWORK = 1.25e9  # bytes a second in and out of a machine, 10 Gbit/s
CORES = 16  # of the driver and of each owner, of which products, lists and joins use all
DRIVER_ROW = 150  # bytes of digests, uid and flags that the driver holds for a row kept

BATCH = 4096
SIZES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
OWNERS = (1, 8, 32, 128)


@dataclass(frozen=True)
class Figures:
    """Of so many rows kept with so many owners: rows/s, seconds of a batch, bytes, and seconds by stage."""

    kept: int
    owners: int
    rate: float
    latency: float
    owner_bytes: float
    driver_bytes: float
    stages: dict[str, float]


def simulate(kept: int, owners: int, batch: int = BATCH, batches: int = 24, seed: int = 0) -> Figures:
    """Return the figures of `batches` batches that come to `kept` rows; owners: machines that hold them."""
    rng = np.random.default_rng(seed)
    centres, root = LISTS * kept**0.5, kept**0.5
    stages = dict.fromkeys(("coarse", "calls", "owners", "decisions", "checkpoints", "commit", "join", "training"), 0.0)
    ends = []
    now = ahead = 0.0  # the driver's clock, and when the next batch's coarse products are there
    for _ in range(batches):
        coarse = 2 * batch * COARSE * centres / CORES
        began = max(now, ahead)
        stages["coarse"] += began - now
        now = began
        ahead = now + coarse  # of the batch after this one, by cores that wait for owners meanwhile
        for share in (0.3, 0.7):  # the best by estimate, then what passes their bar
            now = _round(now, batch, owners, root, share, rng, stages)
        decided = _spent(stages, "decisions", batch * DECIDE) + _spent(stages, "checkpoints", batch * CHECKPOINT)
        committed = _spent(stages, "commit", COMMIT[0] + batch * COMMIT[1] + kept / KEPT / FRAGMENT * COMMIT[2])
        fresh = batch * KEPT
        nearest = 2 * fresh * JOIN * centres / CORES
        carried = fresh * 2 * (DIM + TEXT) / NETWORK + 2 * owners * CALL[1]
        joined = _spent(stages, "join", nearest + carried + 2 * fresh * CODE / (owners * CORES))
        # Lists are trained when the rows have doubled: what the last training and all before cost, over these rows.
        trained = _spent(stages, "training", 2 * fresh * 1.55 * TRAIN * root / (owners * CORES))
        now += decided + committed + joined + trained
        ends.append(now)
    seconds = ends[-1] / batches
    code = (DIM // 8 + 12 + TEXT // 8 + 12) * 1.25
    held = kept / owners * (2 * (DIM + TEXT) + code)
    driver = kept * DRIVER_ROW + centres * (5 * DIM + 5 * TEXT)
    told = {name: float(value) / batches for name, value in stages.items()}
    return Figures(kept, owners, batch / seconds, seconds, held, driver, told)


def _spent(stages: dict[str, float], name: str, seconds: float) -> float:
    stages[name] += seconds
    return seconds


def _round(
    start: float, batch: int, owners: int, root: float, share: float, rng: np.random.Generator, stages: dict[str, float]
) -> float:
    """Send queries of both sides to owners and wait for the last answer; return when it is there."""
    lists = max(READ * root / (root / LISTS), 1.0)  # lists that a query reads: so many owners at most
    reached = 1.0 - (1.0 - 1.0 / owners) ** lists  # chance that a query has a list with an owner
    asked = rng.binomial(2 * batch, reached, owners)
    # Both sides' rows read lie with owners as chance has it; what all owners compute does not depend on their number.
    work = 2 * batch * (QUERY[0] + QUERY[1] * root) * share * rng.dirichlet(np.full(owners, 200.0)) / CORES
    events: list[tuple[float, int]] = []
    sent = start
    for owner in range(owners):  # the driver calls one after the other, of both sides
        sent += 2 * CALL[1] + asked[owner] * (DIM + TEXT) / NETWORK  # an image or a caption, 2 bytes a number
        heapq.heappush(events, (sent + CALL[0] + work[owner], owner))
    got = start
    while events:  # and takes the answers as they come: 16 rows and similarities of 12 bytes
        done, owner = heapq.heappop(events)
        got = max(got, done) + asked[owner] * 16 * 12 / NETWORK
    stages["calls"] += sent - start
    stages["owners"] += got - sent
    return got


def table() -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| rows kept | owners | rows/s | batch of 4,096 | an owner holds | the driver holds | most time (share) |",
        "|---|---|---|---|---|---|---|",
    ]
    for kept, owners in product(SIZES, OWNERS):
        f = simulate(kept, owners)
        worst = sorted(f.stages.items(), key=lambda stage: -stage[1])[:2]
        most = ", ".join(f"{name} {seconds / f.latency:.0%}" for name, seconds in worst)
        lines.append(
            f"| {kept:,} | {owners} | {f.rate:,.0f} | {f.latency:.2f} s | {f.owner_bytes / 1e9:,.1f} GB |"
            f" {f.driver_bytes / 1e9:,.1f} GB | {most} |"
        )
    return "\n".join(lines)


def days(rows: float, owners: int) -> float:
    """Return the days in which a pool grows to so many rows kept, by the rate at sizes in between."""
    edges = np.geomspace(1e5, rows, 40)
    seconds = [(b - a) / KEPT / simulate(int((a * b) ** 0.5), owners).rate for a, b in pairwise(edges)]
    return sum(seconds) / 86_400


def main() -> None:
    """Print the table, and how long a billion rows take."""
    print(table())
    for owners in OWNERS:
        told = ", ".join(f"{rows / 1e6:,.0f} M in {days(rows, owners):.1f} days" for rows in (1e7, 1e8, 1e9))
        print(f"{owners} owners: {told}")


if __name__ == "__main__":
    main()
