"""Task: classify held-out rows by what was selected. A linear probe, plain and weighted, and votes of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize

from curate.benchmark.definition import Task
from curate.benchmark.features import of_world
from curate.benchmark.world import World
from curate.errors import UsageError
from curate_kernels.arrays import F64, I64

_RIDGES = (1.0, 1e-1, 1e-2, 1e-3)  # from the strongest on, each fit begins where the one before ended
_FOLDS = 3
_STEPS = 300


def probe(world: World, rows: I64, task: Task, seed: int) -> dict[str, float]:
    """Return what probes trained on `rows` do on the held-out rows. Raises UsageError without two classes.

    accuracy, balanced_accuracy (mean recall of the classes that are held out), `_weighted` where each class weighs
    the same in the loss, `_knn` of the nearest neighbours; information: I_V(S → T), bits, the entropy of the held-out
    labels minus the probe's loss on them (Xu et al., ICLR 2020, arXiv:2002.10689).
    """
    rows = rows[world.plan.label[rows] >= 0]
    test = np.flatnonzero(world.base.label[world.test] >= 0)
    label, truth = world.plan.label[rows], world.base.label[world.test][test]
    if np.unique(label).size < 2 or not test.size:
        raise UsageError("the selection bears one class only; a probe needs two")
    x, t = of_world(world, "image", task.probe_dims)
    x, t = x[rows], t[test]
    classes = len(world.base.classes)
    found = {}
    for name, weighted in (("", False), ("_weighted", True)):
        ridge = best_ridge(x, label, classes, weighted, np.random.default_rng([seed, 3]))
        log_p = smoothed(predict(fit(x, label, classes, ridge, weighted), t), rows.size)
        guess = log_p.argmax(axis=1)
        found[f"accuracy{name}"] = float((guess == truth).mean())
        found[f"balanced_accuracy{name}"] = balanced_accuracy(truth, guess)
        if not weighted:
            found["information"] = information(truth, log_p)
    guess = nearest_vote(world.x[rows], label, world.test_x[test], classes, task.neighbours)
    found["balanced_accuracy_knn"] = balanced_accuracy(truth, guess)
    return found


def fit(x: F64, label: I64, classes: int, ridge: float, weighted: bool = False, start: F64 | None = None) -> F64:
    """Return (d + 1, K) weights of a multinomial logistic regression, the intercepts last.

    Minimises the mean loss plus ridge / 2 times the squared weights, intercepts apart; weighted: each class that
    occurs weighs the same.
    """
    n, d = x.shape
    weight = np.full(n, 1.0 / n)
    if weighted:
        size = np.bincount(label, minlength=classes)
        weight = 1.0 / (size[label] * np.count_nonzero(size))
    onehot = np.zeros((n, classes))
    onehot[np.arange(n), label] = 1.0

    def loss(flat: F64) -> tuple[float, F64]:
        w = flat.reshape(d + 1, classes)
        logits = x @ w[:d] + w[d]
        log_p = _log_softmax(logits)
        slope = (np.exp(log_p) - onehot) * weight[:, None]
        grad = np.vstack([x.T @ slope + ridge * w[:d], slope.sum(axis=0)])
        value = -float((weight * log_p[np.arange(n), label]).sum()) + ridge / 2 * float((w[:d] ** 2).sum())
        return value, grad.ravel()

    found: Any = minimize(
        loss,
        np.zeros((d + 1) * classes) if start is None else start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _STEPS, "gtol": 1e-5},
    )
    out: F64 = found.x.reshape(d + 1, classes)
    return out


def predict(weights: F64, x: F64) -> F64:
    """Return log p (n, K)."""
    return _log_softmax(x @ weights[:-1] + weights[-1])


def _log_softmax(logits: F64) -> F64:
    """Return log p of each row; scipy's log-sum-exp takes ten times as long on few rows."""
    shifted: F64 = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def smoothed(log_p: F64, n: int) -> F64:
    """Return log p with one row's worth of the uniform mixed in: a class that was never seen costs no infinite bits."""
    out: F64 = np.log((n * np.exp(log_p) + 1.0 / log_p.shape[1]) / (n + 1))
    return out


def best_ridge(x: F64, label: I64, classes: int, weighted: bool, rng: np.random.Generator) -> float:
    """Return the ridge of the least cross-validated loss on the rows themselves, weighted as the fit is."""
    fold = rng.permutation(label.size) % _FOLDS
    size = np.bincount(label, minlength=classes)
    weight = 1.0 / size[label] if weighted else np.ones(label.size)
    losses = np.zeros(len(_RIDGES))
    for k in range(_FOLDS):
        own, out = fold != k, fold == k
        start = None
        for i, ridge in enumerate(_RIDGES if own.any() and out.any() else ()):
            start = fit(x[own], label[own], classes, ridge, weighted, start)
            log_p = smoothed(predict(start, x[out]), int(own.sum()))
            losses[i] -= float((weight[out] * log_p[np.arange(int(out.sum())), label[out]]).sum())
    return _RIDGES[int(np.argmin(losses))]


def balanced_accuracy(truth: I64, guess: I64) -> float:
    """Return the mean over the classes of `truth` of the share that is guessed right."""
    return float(np.mean([(guess[truth == k] == k).mean() for k in np.unique(truth)]))


def information(truth: I64, log_p: F64) -> float:
    """Return the entropy of the labels minus the mean loss on them, bits."""
    share = np.bincount(truth) / truth.size
    share = share[share > 0]
    loss = -float(log_p[np.arange(truth.size), truth].mean()) / np.log(2)
    return float(-(share * np.log2(share)).sum() - loss)


def nearest_vote(x: Any, label: I64, t: Any, classes: int, k: int) -> I64:
    """Return the commonest label (m,) among the k nearest rows by cosine, ties to the lowest code."""
    from curate.scoring.nearest import nearest

    _, index = nearest(x, t, k=min(k, x.shape[0]))
    votes = np.zeros((t.shape[0], classes), dtype=np.int64)
    np.add.at(votes, (np.arange(t.shape[0])[:, None], label[index]), 1)
    winner: I64 = votes.argmax(axis=1).astype(np.int64)
    return winner
