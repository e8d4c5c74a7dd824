"""How well each score finds planted noise: captions of other images, labels of other classes.

    python -m benchmarks.noise captions POOL [--seeds 5]
    python -m benchmarks.noise labels POOL [--seeds 5]
    python -m benchmarks.noise outliers POOL --other POOL [--seeds 5]

POOL was grown from a clean collection. Its admitted rows are read, noise is planted, and every score is fitted on the
noisy rows themselves. AUC: the chance that a wrong sample scores worse than a right one. Recall: share of the wrong
ones found where 5 % (captions) or 10 % (labels) of the right ones are lost. Outliers: .1 % of the rows come from
another collection; average precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import rankdata

import curate
from curate_kernels.arrays import B1, F32, F64, unit_rows

Scores = Mapping[str, F64]  # worse is higher
RATES = {"captions": (0.1, 0.2, 0.4), "labels": (0.1, 0.2)}
LOST = {"captions": 0.05, "labels": 0.10}


def auc(bad: B1, worse: F64) -> float:
    ranks, count = rankdata(worse), bad.sum()
    return float((ranks[bad].sum() - count * (count + 1) / 2) / count / (bad.size - count))


def recall(bad: B1, worse: F64, lost: float) -> float:
    if np.unique(worse).size == 2:  # a gate: what it catches at what it loses, as it stands
        return float(worse[bad].mean())
    return float((worse[bad] > np.quantile(worse[~bad], 1 - lost)).mean())


def swapped(rng: np.random.Generator, n: int, rate: float) -> tuple[np.ndarray, B1]:
    """Return whose caption each row bears, and which rows bear a wrong one: a share of rows, turned in a circle."""
    chosen = rng.choice(n, int(rate * n), replace=False)
    source, bad = np.arange(n), np.zeros(n, dtype=bool)
    source[chosen], bad[chosen] = np.roll(chosen, 1), True
    return source, bad


def predicted_text(image: F32, text: F32) -> F32:
    """Return each image's caption embedding by ridge regression, leave-one-out: a linear map in CLIP's place."""
    x, y = np.sqrt(np.maximum(image, 0)), text - text.mean(axis=0)
    x = (x - x.mean(axis=0)).astype(np.float64)
    gram = x.T @ x
    half = np.linalg.solve(gram + 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T)
    leverage = np.einsum("ij,ji->i", x, half)[:, None]
    return unit_rows((((x @ (half @ y)) - leverage * y) / (1 - leverage)).astype(np.float32))


def caption_scores(image: F32, text: F32, right: B1) -> Scores:
    guess, centred = predicted_text(image, text), unit_rows(text - text.mean(axis=0))
    cosine = np.einsum("ij,ij->i", guess, centred)
    found = {f"vinfo, {t} trims": -curate.score(image, "vinfo", text=text, trims=t)["pvi"] for t in (0, 1)}
    learned = curate.score(image, "vinfo-learned", text=text)
    return {
        "cosine of a linear map": -cosine,
        f"cosine < .4, which loses {(cosine[right] < 0.4).mean():.0%}": (cosine < 0.4).astype(float),
        "negCLIPLoss on the linear map": -curate.score(guess, "negclip", text=centred, temperature=0.07)["pvi_infonce"],
        **found,
        "vinfo-learned": -learned["pvi_learned"],
        "vinfo-learned, joint": -learned["pvi_joint"],
    }


def label_scores(image: F32, label: np.ndarray) -> Scores:
    info = curate.score(image, "vinfo", labels=label)
    confident = curate.score(image, "mislabel", labels=label)
    probe = curate.score(image, "probe", labels=label)
    return {
        "vinfo, s1_label": info["s1_label"],
        "vinfo, -pvi_label": -info["pvi_label"],
        "confident learning, self-confidence": -confident["label_confidence"],
        "confident learning, margin": -confident["label_margin"],
        "confident learning, weighted entropy": -confident["label_entropy"],
        "probe, EL2N": probe["el2n"],
        "vote of 20 neighbours, s1": curate.score(image, "vinfo-vote", labels=label)["s1_vote"],
    }


def table(kind: str, trial: Callable[[np.random.Generator, float], tuple[Scores, B1]], seeds: int) -> None:
    lost = LOST[kind]
    print(f"| wrong {kind} | score | AUC | recall at {lost:.0%} lost |\n|---|---|---|---|")
    for rate in RATES[kind]:
        figures: dict[str, list[tuple[float, float]]] = {}
        for seed in range(seeds):
            scores, bad = trial(np.random.default_rng(seed), rate)
            for name, worse in scores.items():
                figures.setdefault(name, []).append((auc(bad, worse), recall(bad, worse, lost)))
        for name, values in figures.items():
            mean, error = np.mean(values, axis=0), np.std(values, axis=0) / np.sqrt(max(seeds - 1, 1))
            print(
                f"| {rate:.0%} | {name} | {mean[0]:.4f} ± {error[0]:.4f} | {mean[1]:.3f} ± {error[1]:.3f} |", flush=True
            )


def average_precision(bad: B1, worse: F64) -> float:
    hit = bad[np.argsort(-worse, kind="stable")]
    return float((np.cumsum(hit) / np.arange(1, hit.size + 1))[hit].mean())


def outliers(image: F32, other: F32, seeds: int) -> None:
    """Print the average precision with which each score finds a few rows of another collection."""
    figures: dict[str, list[float]] = {}
    count = image.shape[0] // 1000
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x = np.concatenate([image, other[rng.choice(other.shape[0], count, replace=False)]])
        x, bad = x[order := rng.permutation(x.shape[0])], order >= image.shape[0]
        worse = {
            "anomaly": curate.score(x, "anomaly")["anomaly"],
            "novelty": curate.score(x, "novelty")["novelty"],
            "density, sketched": -curate.score(x, "density")["density"],
            "density, 10 neighbours": -curate.score(x, "density-knn")["density_knn"],
            "leverage": curate.score(x, "leverage")["leverage"],
            "vinfo-self, s0": curate.score(x, "vinfo-self")["s0_self"],
        }
        for name, values in worse.items():
            figures.setdefault(name, []).append(average_precision(bad, values))
    print("| score | average precision of .1 % outliers |\n|---|---|")
    for name, precisions in figures.items():
        print(f"| {name} | {np.mean(precisions):.3f} ± {np.std(precisions) / np.sqrt(max(seeds - 1, 1)):.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("captions", "labels", "outliers"))
    parser.add_argument("pool")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--other")
    given = parser.parse_args()
    pool = curate.Pool.open(given.pool)
    if given.kind == "outliers":
        other = curate.Pool.open(given.other).embeddings("image", where="embedded")
        outliers(pool.embeddings("image", where="decision = 'admit'"), other, given.seeds)
        return
    where = "embedded" if given.kind == "captions" else "embedded AND label IS NOT NULL"
    image = pool.embeddings("image", where=where)
    if given.kind == "captions":
        text = pool.embeddings("text", where=where)

        def trial(rng: np.random.Generator, rate: float) -> tuple[Scores, B1]:
            source, bad = swapped(rng, image.shape[0], rate)
            return caption_scores(image, text[source], ~bad), bad
    else:
        names, label = np.unique(pool.frame(["label"], where=where)["label"].to_numpy(), return_inverse=True)

        def trial(rng: np.random.Generator, rate: float) -> tuple[Scores, B1]:
            bad = rng.random(label.size) < rate
            noisy = np.where(bad, (label + rng.integers(1, names.size, label.size)) % names.size, label)
            return label_scores(image, noisy), bad

    table(given.kind, trial, given.seeds)


if __name__ == "__main__":
    main()
