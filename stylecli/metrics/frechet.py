"""Fréchet distance between two sets of features (FID when they come from Inception-v3)."""

from typing import Any

import numpy as np

from stylecli.errors import UsageError
from stylecli.metrics.moments import Moments, moments_of
from stylecli.statistics.arrays import Float64, as_features, check_same_width

_EPS = float(np.finfo(np.float64).eps)
# The quick route is kept when its rounding should stay below this share of the distance, or
# below this share of the traces, where the distance is as good as zero.
_OF_DISTANCE = 1e-10
_OF_TRACES = 1e-13
# Times eps·λmax: twice the root mean square error of the smaller half of LAPACK's eigenvalues, the
# half whose roots matter, at its largest over spectra of two to fourteen decades, d = 256 to 512.
_EIGENVALUE_ERROR = 0.1
_COLUMNS = 256  # of a triangular product at a time


def frechet_distance(a: Any, b: Any, ddof: int = 1) -> float:
    """Return ‖μa-μb‖² + Tr(Σa + Σb - 2(ΣaΣb)^½) of features [N, d] and [M, d].

    Covariances divide by N - ddof: 1 as in StyleGAN (fid50k), 0 as in StyleGAN2-ADA
    (fid50k_full). Computed in float64; rank-deficient covariances (N ≤ d) are no trouble. Raises
    UsageError for wrong shapes, for values that are not finite, and for fewer than ddof + 1 rows.
    Heusel et al. 2017, Eq. 6.
    """
    if ddof not in (0, 1):
        raise UsageError(f"ddof {ddof!r} is not 0 or 1")
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or b.ndim != 2 or max(len(a), len(b)) <= a.shape[1]:
        a, b = as_features("a", a, ddof + 1), as_features("b", b, ddof + 1)
        check_same_width("a", a, "b", b)
        return _small_distance(a, b, ddof)
    check_same_width("a", a, "b", b)
    return moments_distance(moments_of(a), moments_of(b), ddof)


def moments_distance(a: Moments, b: Moments, ddof: int = 1) -> float:
    """Return the same from streamed moments. Raises UsageError for fewer than ddof + 1 rows."""
    return statistics_distance(a.mean(), a.covariance(ddof), b.mean(), b.covariance(ddof))


def statistics_distance(mean_a: Any, cov_a: Any, mean_b: Any, cov_b: Any) -> float:
    """Return the Fréchet distance of two Gaussians given by means [d] and covariances [d, d].

    With Σa = LLᵀ the eigenvalues of ΣaΣb are those of the symmetric LᵀΣbL, and Tr(ΣaΣb)^½ is the
    sum of their roots: one Cholesky factor and one tridiagonal reduction, no eigenvectors. The
    root of an eigenvalue below rounding is not below rounding, though. What that amounts to is
    estimated, and where it might show (a singular or nearly singular covariance, or next to no
    distance) the trace is taken as the nuclear norm of Σa^½ Σb^½ instead, which keeps the small
    half of the spectrum. Real whatever the rank, unlike a matrix square root of ΣaΣb.
    """
    mean_a, mean_b = np.asarray(mean_a, np.float64), np.asarray(mean_b, np.float64)
    cov_a, cov_b = np.asarray(cov_a, np.float64), np.asarray(cov_b, np.float64)
    d = mean_a.size
    shapes = [list(x.shape) for x in (mean_a, cov_a, mean_b, cov_b)]
    if shapes != [[d], [d, d], [d], [d, d]]:
        raise UsageError(f"statistics have shapes {shapes}: expected [d], [d, d], [d], [d, d]")
    traces = float(np.trace(cov_a) + np.trace(cov_b))
    factor_a = _factor(cov_a)
    if factor_a is not None:
        cross, error = _root_trace(factor_a, cov_b)
        distance = _total(mean_a, mean_b, traces, cross)
        if 2.0 * error <= max(_OF_DISTANCE * distance, _OF_TRACES * traces):
            return distance
    factor_b = _factor(cov_b)
    if factor_a is None or factor_b is None:
        factor_a, factor_b = _root(cov_a).T, _root(cov_b).T
    cross = float(np.linalg.svd(factor_a.T @ factor_b, compute_uv=False).sum())
    return _total(mean_a, mean_b, traces, cross)


def _small_distance(a: Float64, b: Float64, ddof: int) -> float:
    """Return the distance of sets of no more rows than columns.

    Tr(ΣaΣb)^½ is the nuclear norm of the cross products [N, M]: exact where covariances are
    singular, and much cheaper than decompositions of d x d.
    """
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    centred_a = (a - mean_a) / np.sqrt(len(a) - ddof)  # [N, d], Σa = centred_aᵀ centred_a
    centred_b = (b - mean_b) / np.sqrt(len(b) - ddof)
    cross = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    traces = np.square(centred_a).sum() + np.square(centred_b).sum()
    return _total(mean_a, mean_b, float(traces), float(cross))


def _root_trace(factor: Float64, cov: Float64) -> tuple[float, float]:
    """Return (Tr(LLᵀ ``cov``)^½, an estimate of its rounding error)."""
    values = np.maximum(np.linalg.eigvalsh(_congruence(factor, cov), UPLO="L"), 0.0)
    uncertain = _EIGENVALUE_ERROR * _EPS * float(values.max(initial=0.0))
    roots = np.sqrt(values)
    # |√(λ + e) - √λ| is at most √e, and at most e / √λ.
    errors = np.minimum(np.sqrt(uncertain), uncertain / np.maximum(roots, 1e-300))
    # Errors of single eigenvalues have both signs: they add up like a random walk's steps.
    return float(roots.sum()), float(np.sqrt(np.square(errors).sum()))


def _congruence(factor: Float64, cov: Float64) -> Float64:
    """Return the lower triangle of LᵀΣL for a lower triangular L; what is above is not set.

    A third of the work of two whole products: columns of L are zero above their diagonal, and
    only rows from the diagonal down are asked for.
    """
    inner = np.zeros_like(cov)
    for start in range(0, len(cov), _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        half = cov[start:, start:] @ factor[start:, columns]
        inner[start:, columns] = factor[start:, start:].T @ half
    return inner


def _factor(cov: Float64) -> Float64 | None:
    """Return the Cholesky factor of ``cov``, or None where its rank is not full."""
    try:
        factor = np.asarray(np.linalg.cholesky(cov), np.float64)
    except np.linalg.LinAlgError:
        return None
    floor = len(cov) * _EPS * float(np.diag(cov).max(initial=0.0))
    return factor if float(np.square(np.diag(factor)).min(initial=np.inf)) > floor else None


def _root(cov: Float64) -> Float64:
    """Return R [d, d] with RᵀR = ``cov``, whatever its rank."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    # Eigenvalues below rounding are zeros; their square roots would not be below rounding.
    values[values < values.max(initial=0.0) * len(values) * _EPS] = 0.0
    return np.asarray(np.sqrt(values)[:, None] * vectors.T)


def _total(mean_a: Float64, mean_b: Float64, traces: float, cross: float) -> float:
    # The distance is never negative; only rounding is.
    return max(0.0, float(np.square(mean_a - mean_b).sum()) + traces - 2.0 * cross)
