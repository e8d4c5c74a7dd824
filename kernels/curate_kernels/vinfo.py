"""Pointwise V-information: log predictive densities in closed form, from leverages and from class distances.

V-information: Xu et al., ICLR 2020 (arXiv 2002.10689); pointwise form: Ethayarajh et al., ICML 2022 (2110.08420).
"""

from __future__ import annotations

import math

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import B1, F64, I64


@kernel
def student_log2(leverage: F64, quad: F64, n: float, d: int, logdet: float, out: F64) -> None:
    """Log2 density of new targets under the posterior predictive Student-t of a Bayesian linear-Gaussian family.

    With the matrix-normal-inverse-Wishart prior (W0 = 0, V0 = I/lambda, Psi0 = psi I, nu0 = d + 2) and n rows seen,
    s = 1 + x'Vx, q = r'Psi^-1 r / s, df = nu - d + 1:
    l = lnG((df+d)/2) - lnG(df/2) - d/2 ln pi - d/2 ln s - 1/2 ln|Psi| - (df+d)/2 ln(1+q)

    leverage: (m,) float64, x'Vx; quad: (m,) float64, r'Psi^-1 r; logdet: ln|Psi|; out: (m,) float64, bits
    """
    df = n + 3.0
    const = math.lgamma((df + d) / 2.0) - math.lgamma(df / 2.0) - 0.5 * d * math.log(math.pi) - 0.5 * logdet
    for i in range(leverage.shape[0]):
        s = 1.0 + leverage[i]
        value = const - 0.5 * d * math.log(s) - 0.5 * (df + d) * math.log1p(quad[i] / s)
        out[i] = value / math.log(2.0)


@kernel
def student_loo_log2(leverage: F64, quad: F64, n: float, d: int, logdet: float, out: F64) -> None:
    """Log2 density of each seen target under the posterior of all other rows: exact leave-one-out, no refit.

    Taking row i out of (V, Psi, nu) by rank-one downdates, with h = x'Vx and q = r'Psi^-1 r of the full posterior:
    s = 1/(1-h), ln|Psi_-i| = ln|Psi| + ln(1 - q/(1-h)), q_-i = q/(1-h-q), df = nu - 1 - d + 1.

    leverage: (n,) float64; quad: (n,) float64; logdet: ln|Psi| of the full posterior; out: (n,) float64, bits
    """
    df = n + 2.0
    const = math.lgamma((df + d) / 2.0) - math.lgamma(df / 2.0) - 0.5 * d * math.log(math.pi) - 0.5 * logdet
    for i in range(leverage.shape[0]):
        rest = max(1.0 - leverage[i], 1e-9)
        left = max(rest - quad[i], 1e-9)
        value = const + 0.5 * d * math.log(rest) - 0.5 * math.log(left / rest)
        value -= 0.5 * (df + d) * math.log1p(quad[i] / left)
        out[i] = value / math.log(2.0)


@kernel
def lda_bits(
    cross: F64, norm: F64, gram: F64, counts: F64, label: I64, seen: B1, shrink: float, s0: F64, s1: F64
) -> None:
    """Surprise of each row's label without and with its features, under shared-covariance Gaussian classes.

    In the space whitened by the pooled within-class scatter, r_k = x - mu_k, c the row's own class, and, for a row
    that the statistics have seen, g = n_c/(n_c-1) undoes its share of mean and scatter (exact leave-one-out):
    D_k = (n - 1 - K) (a_k + g b_k^2 / (1 - g a_c)),  a_k = |r_k|^2, b_k = r_k.r_c, r_c -> g r_c for k = c
    log q(k) = log(n_k - [k=c] + 1/2) - D_k/2, normalised;  q0(c) from the class counts alone.

    cross: (m, K) float64, x.mu_k; norm: (m,) float64, |x|^2; gram: (K, K) float64, mu_j.mu_k; counts: (K,) float64
    label: (m,) int64; seen: (m,) bool; shrink: share of the scatter that was replaced by its mean diagonal
    s0, s1: (m,) float64, out: -log2 q0(c) and -log2 q(c); both equal where no other row of the class is known
    """
    classes = counts.shape[0]
    total = 0.0
    for k in range(classes):
        total += counts[k]
    logit = np.empty(classes)
    for i in range(cross.shape[0]):
        c = label[i]
        out_one = 1.0 if seen[i] else 0.0
        others = counts[c] - out_one
        s0[i] = -math.log2((others + 0.5) / (total - out_one + 0.5 * classes))
        if others < 1.0:
            s1[i] = s0[i]
            continue
        scale = counts[c] / others if seen[i] else 1.0
        removed = (1.0 - shrink) * scale if seen[i] else 0.0
        own = norm[i] - 2.0 * cross[i, c] + gram[c, c]
        top = -np.inf
        for k in range(classes):
            dist = norm[i] - 2.0 * cross[i, k] + gram[k, k]
            along = norm[i] - cross[i, k] - cross[i, c] + gram[k, c]
            if k == c:
                dist *= scale * scale
                along *= scale
            dist += removed * along * along / max(1.0 - removed * own, 1e-9)
            weight = counts[k] - (out_one if k == c else 0.0) + 0.5
            logit[k] = math.log(weight) - 0.5 * max(total - out_one - classes, 1.0) * dist
            if counts[k] < 1.0:
                logit[k] = -np.inf
            top = max(top, logit[k])
        partition = 0.0
        for k in range(classes):
            partition += math.exp(logit[k] - top)
        s1[i] = (math.log(partition) + top - logit[c]) / math.log(2.0)
