"""Other packages' selectors as rivals: each is skipped with the reason where its package is not installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from curate.benchmark.world import World
from curate.errors import UsageError
from curate_kernels.arrays import I64

Peer = Callable[[World, I64, int, int], I64]
_MOST_DENSE = 20_000  # rows whose similarities are held in a matrix, 1.6 GB


def run_peer(name: str, world: World, rows: I64, count: int, seed: int) -> I64:
    """Return `count` of the rows as another package chooses them.

    Raises UsageError where the package is missing or the world lacks what it needs.
    """
    module, pip, choose = PEERS[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{pip} is not installed ({error}); pip install {pip}") from error
    try:
        picks = np.asarray(choose(world, rows, count, seed), dtype=np.int64)
    except UsageError:
        raise
    except Exception as error:  # whatever another package raises is its answer, and stops nobody else
        raise UsageError(f"{pip} failed: {type(error).__name__}: {error}") from error
    return rows[picks]


def peer_version(name: str) -> str:
    """Return the installed version of a peer's package, `""` where it is not installed."""
    module, pip, _ = PEERS[name]
    try:
        return metadata.version(pip)
    except metadata.PackageNotFoundError:
        return "unknown" if importlib.util.find_spec(module.partition(".")[0]) else ""


def _kmedoids(world: World, rows: I64, count: int, seed: int) -> Any:
    """The rows nearest to the centres of as many k-means clusters; where two clusters share one, the next."""
    from sklearn.cluster import MiniBatchKMeans

    x = world.x[rows]
    kind = MiniBatchKMeans(n_clusters=count, random_state=seed, n_init=1, batch_size=max(1024, 3 * count))
    centres = kind.fit(x).cluster_centers_
    taken = np.zeros(rows.size, dtype=np.bool_)
    picks = []
    for distance in _distances(x, centres):
        distance[taken] = np.inf
        picks.append(int(distance.argmin()))
        taken[picks[-1]] = True
    return picks


def _distances(x: Any, centres: Any) -> Any:
    square = (x**2).sum(axis=1)
    return (square - 2 * x @ centre + centre @ centre for centre in centres)


def _small(rows: I64) -> None:
    if rows.size > _MOST_DENSE:
        raise UsageError(
            f"its matrix of {rows.size} x {rows.size} similarities is too large; {_MOST_DENSE} rows at most"
        )


def _apricot(world: World, rows: I64, count: int, seed: int) -> Any:
    from apricot import FacilityLocationSelection

    _small(rows)
    return (
        FacilityLocationSelection(count, metric="cosine", optimizer="lazy", random_state=seed)
        .fit(world.x[rows].astype(np.float64))
        .ranking
    )


def _submodlib(world: World, rows: I64, count: int, seed: int) -> Any:
    from submodlib import FacilityLocationFunction

    _small(rows)
    made = FacilityLocationFunction(n=rows.size, mode="dense", data=world.x[rows], metric="cosine")
    return [pick for pick, _ in made.maximize(budget=count, optimizer="LazyGreedy", show_progress=False)]


def _cleanlab(world: World, rows: I64, count: int, seed: int) -> Any:
    """The rows of the highest self-confidence, from cross-validated logistic regression, as its tutorial has it."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    _, label = np.unique(world.plan.label[rows], return_inverse=True)
    if world.labels is None or np.bincount(label).min() < 5:
        raise UsageError("it needs labels, and five rows of each class")
    p = cross_val_predict(LogisticRegression(max_iter=200), world.x[rows], label, cv=5, method="predict_proba")
    return np.argsort(-get_label_quality_scores(label, p), kind="stable")[:count]


def _imagededup(world: World, rows: I64, count: int, seed: int) -> Any:
    """Rows whose perceptual hash differs from every earlier kept one by more than 10 bits, at random; then the rest."""
    from imagededup.methods import PHash

    order = np.random.default_rng(seed).permutation(rows.size)
    hasher = PHash(verbose=False)
    images = zip(order, _images(world, rows[order]), strict=True)
    hashes = {str(i): hasher.encode_image(image_array=image) for i, image in images}
    dropped = {int(i) for i in hasher.find_duplicates_to_remove(encoding_map=hashes)}
    return [i for i in order if i not in dropped][:count]


def _cleanvision(world: World, rows: I64, count: int, seed: int) -> Any:
    """Rows without an issue in its report, at random."""
    import tempfile
    from pathlib import Path

    from cleanvision import Imagelab
    from PIL import Image

    order = np.random.default_rng(seed).permutation(rows.size)
    with tempfile.TemporaryDirectory() as folder:
        for i, image in zip(order, _images(world, rows[order]), strict=True):
            Image.fromarray(image).save(Path(folder, f"{i:08d}.png"))
        lab = Imagelab(data_path=folder)
        lab.find_issues(verbose=False)
        flags = lab.issues[[column for column in lab.issues if column.startswith("is_")]].any(axis=1)
    bad = {int(Path(path).stem) for path, flagged in flags.items() if flagged}
    return [i for i in order if i not in bad][:count]


def _images(world: World, rows: I64) -> Any:
    """Yield the pixels of rows as they were corrupted."""
    from curate.benchmark.pixels import altered

    if world.base.read is None:
        raise UsageError("it reads images, and this collection has embeddings only")
    for i, image in zip(rows.tolist(), world.base.read(world.plan.origin[rows]), strict=True):
        change = str(world.plan.change[i])
        yield altered(image, change) if change else image


def _infogrowth(world: World, rows: I64, count: int, seed: int) -> Any:
    """InfoGrowth row by row on hnswlib: gain is the mean distance to the 4 nearest earlier rows; drawn by it."""
    import hnswlib

    x = world.x[rows]
    index = hnswlib.Index(space="cosine", dim=x.shape[1])
    index.init_index(max_elements=rows.size, ef_construction=100, M=48, random_seed=seed)
    index.set_ef(64)
    index.set_num_threads(1)
    gain = np.ones(rows.size)
    for i in range(rows.size):
        if i:
            gain[i] = float(index.knn_query(x[i : i + 1], k=min(4, i))[1].mean())
        index.add_items(x[i : i + 1], [i])
    weight = np.maximum(gain, 1e-12)
    luck = np.random.default_rng(seed).gumbel(size=rows.size)
    return np.argsort(-(np.log(weight) + luck), kind="stable")[:count]


PEERS: dict[str, tuple[str, str, Peer]] = {
    "kmeans-medoids": ("sklearn.cluster", "scikit-learn", _kmedoids),
    "apricot": ("apricot", "apricot-select", _apricot),
    "submodlib": ("submodlib", "submodlib-py", _submodlib),
    "cleanlab": ("cleanlab", "cleanlab", _cleanlab),
    "cleanvision": ("cleanvision", "cleanvision", _cleanvision),
    "imagededup": ("imagededup.methods", "imagededup", _imagededup),
    "infogrowth-hnswlib": ("hnswlib", "hnswlib", _infogrowth),
}
"""Name: the module that must import, the package that has it, and the function (world, rows, count, seed) → places."""
