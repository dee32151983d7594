"""Fréchet distance between two sets of features (FID when they come from Inception-v3)."""

from typing import Any

import numpy as np

from stylecli.errors import UsageError
from stylecli.metrics.arrays import Float64, as_features, check_same_width


def frechet_distance(a: Any, b: Any, ddof: int = 1) -> float:
    """Return ‖μa-μb‖² + Tr(Σa + Σb - 2(ΣaΣb)^½) of features [N, d] and [M, d].

    Covariances divide by N - ddof: 1 as in StyleGAN (fid50k), 0 as in StyleGAN2-ADA
    (fid50k_full). Computed in float64; rank-deficient covariances (N ≤ d) are no trouble. Raises
    UsageError for wrong shapes, for values that are not finite, and for fewer than ddof + 1 rows.
    Heusel et al. 2017, Eq. 6.
    """
    if ddof not in (0, 1):
        raise UsageError(f"ddof {ddof!r} is not 0 or 1")
    a, b = as_features("a", a, ddof + 1), as_features("b", b, ddof + 1)
    check_same_width("a", a, "b", b)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    centred_a = (a - mean_a) / np.sqrt(len(a) - ddof)  # [N, d], Σa = centred_aᵀ centred_a
    centred_b = (b - mean_b) / np.sqrt(len(b) - ddof)
    if max(len(a), len(b)) <= a.shape[1]:
        # Tr(ΣaΣb)^½ is the nuclear norm of the cross products: exact where covariances are
        # singular, and much cheaper than two d x d decompositions.
        cross = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
        traces = np.square(centred_a).sum() + np.square(centred_b).sum()
        return _total(mean_a, mean_b, float(traces), float(cross))
    return statistics_distance(mean_a, centred_a.T @ centred_a, mean_b, centred_b.T @ centred_b)


def statistics_distance(mean_a: Any, cov_a: Any, mean_b: Any, cov_b: Any) -> float:
    """Return the Fréchet distance of two Gaussians given by means [d] and covariances [d, d].

    The trace term Tr(ΣaΣb)^½ is the nuclear norm of Σa^½ Σb^½, each root from a symmetric
    decomposition: real whatever the rank, where a matrix square root of ΣaΣb fails or turns
    complex, and without the squared spectrum of Σa^½ Σb Σa^½, which loses the small half.
    """
    mean_a, mean_b = np.asarray(mean_a, np.float64), np.asarray(mean_b, np.float64)
    cov_a, cov_b = np.asarray(cov_a, np.float64), np.asarray(cov_b, np.float64)
    d = mean_a.size
    shapes = [list(x.shape) for x in (mean_a, cov_a, mean_b, cov_b)]
    if shapes != [[d], [d, d], [d], [d, d]]:
        raise UsageError(f"statistics have shapes {shapes}: expected [d], [d, d], [d], [d, d]")
    product = _root(cov_a) @ _root(cov_b).T
    cross = float(np.linalg.svd(product, compute_uv=False).sum())
    return _total(mean_a, mean_b, float(np.trace(cov_a) + np.trace(cov_b)), cross)


def _root(cov: Float64) -> Float64:
    """Return R [d, d] with RᵀR = ``cov``."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    # Eigenvalues below rounding are zeros; their square roots would not be below rounding.
    values[values < values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps] = 0.0
    return np.asarray(np.sqrt(values)[:, None] * vectors.T)


def _total(mean_a: Float64, mean_b: Float64, traces: float, cross: float) -> float:
    # The distance is never negative; only rounding is.
    return max(0.0, float(np.square(mean_a - mean_b).sum()) + traces - 2.0 * cross)
