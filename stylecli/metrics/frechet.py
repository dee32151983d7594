"""Fréchet distance between two sets of features (FID when they come from Inception-v3).

Mean and covariance of features that arrive in batches take memory that does not grow with their
number. Rows are centred on their own block's mean before they are multiplied, and blocks are joined
by the pairwise update of Chan, Golub and LeVeque (1983): features far from zero lose no digits,
which the difference of raw moments E[xxᵀ] - μμᵀ does. Everything is float64.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError, plural
from stylecli.features.extractors import STAND_IN, Extractor
from stylecli.metrics import NAMES_OF
from stylecli.metrics.collecting import Accumulator, Rows
from stylecli.metrics.kernel import KID
from stylecli.metrics.tasks import (
    PUBLISHED_FAKES,
    PictureMetric,
    PictureTask,
    Score,
    says_resized,
    says_stand_in,
)
from stylecli.statistics.arrays import Float64, as_features, check_same_width

BLOCK = 2048  # rows multiplied at a time: enough for the matrix product to run at full speed
SMALL = 2048  # sets up to this size are kept whole: exact and quicker
LEAST = 2048  # fewer pictures than features: the covariance is singular, the bias large
_EPS = float(np.finfo(np.float64).eps)
# The quick route is kept when its rounding should stay below this share of the distance, or
# below this share of the traces, where the distance is as good as zero.
_OF_DISTANCE = 1e-10
_OF_TRACES = 1e-13
# Times eps·λmax: twice the root mean square error of the smaller half of LAPACK's eigenvalues, the
# half whose roots matter, at its largest over spectra of two to fourteen decades, d = 256 to 512.
_EIGENVALUE_ERROR = 0.1
_COLUMNS = 256  # of a triangular product at a time


class Moments:
    """Count, mean [d] and scatter [d, d] = Σ(x-μ)(x-μ)ᵀ of rows added so far.

    Rows go through blocks of ``BLOCK`` whatever the batches were, so the same rows in the same
    order give the same bits for any batch size; another order, or ``merge``, moves the last two
    or three digits of float64.
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise UsageError(f"width {width} of features: expected at least 1")
        self.width = width
        self._count = 0
        self._mean = np.zeros(width)
        self._scatter = np.zeros((width, width))
        self._block = np.empty((BLOCK, width))
        self._filled = 0

    @property
    def count(self) -> int:
        """Rows added so far."""
        return self._count + self._filled

    def add(self, features: Any) -> None:
        """Add rows [N, d]. Raises UsageError for another width or values that are not finite."""
        rows = np.asarray(features)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise UsageError(f"features have shape {list(rows.shape)}: expected [N, {self.width}]")
        start = 0
        while start < len(rows):
            taken = min(BLOCK - self._filled, len(rows) - start)
            part = self._block[self._filled : self._filled + taken]
            part[:] = rows[start : start + taken]
            if not np.isfinite(part).all():
                raise UsageError("features hold values that are not finite: expected finite ones")
            self._filled += taken
            start += taken
            if self._filled == BLOCK:
                self._join_block()

    def mean(self) -> Float64:
        """Return μ [d]. Raises UsageError before the first row."""
        self._need(1)
        return self._mean.copy()

    def covariance(self, ddof: int = 1) -> Float64:
        """Return scatter / (N - ddof) [d, d]. Raises UsageError for fewer than ddof + 1 rows."""
        self._need(ddof + 1)
        return self._scatter / (self._count - ddof)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays, for ``numpy.savez`` and the like."""
        self._join_block()
        return {
            "count": np.array(self._count),
            "mean": self._mean.copy(),
            "scatter": self._scatter.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Moments":
        """Return moments from ``state()``; continuing gives the same to float64 rounding.

        Raises UsageError when arrays are missing, do not fit each other or are not finite.
        """
        missing = {"count", "mean", "scatter"} - set(state)
        if missing:
            raise UsageError(f"a state of moments lacks {', '.join(sorted(missing))}")
        mean = np.asarray(state["mean"], np.float64)
        scatter = np.asarray(state["scatter"], np.float64)
        count = np.asarray(state["count"])
        if mean.ndim != 1 or scatter.shape != (mean.size, mean.size) or count.size != 1:
            raise UsageError(
                f"a state of moments has shapes {list(mean.shape)} and {list(scatter.shape)}: "
                "expected [d] and [d, d]"
            )
        if int(count.item()) < 0 or not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
            raise UsageError("a state of moments is damaged: expected finite values and a count")
        moments = cls(mean.size)
        moments._count = int(count.item())
        moments._mean, moments._scatter = mean.copy(), scatter.copy()
        return moments

    def _need(self, rows: int) -> None:
        if self.count < rows:
            raise UsageError(f"{self.count} rows were added: expected at least {rows}")
        self._join_block()

    def _join_block(self) -> None:
        if not self._filled:
            return
        rows = self._block[: self._filled]
        mean = rows.mean(axis=0)
        rows -= mean
        self._join(self._filled, mean, rows.T @ rows)  # one buffer: numpy computes half of it
        self._filled = 0

    def _join(self, count: int, mean: Float64, scatter: Float64) -> None:
        if not count:
            return
        total = self._count + count
        step = mean - self._mean
        self._scatter += scatter
        if self._count:
            scaled = step * np.sqrt(self._count * count / total)
            self._scatter += np.outer(scaled, scaled)
        self._mean += step * (count / total)
        self._count = total


def moments_of(features: Any) -> Moments:
    """Return the moments of features [N, d] of any float type; no float64 copy of all is made."""
    rows = np.asarray(features)
    if rows.ndim != 2:
        raise UsageError(f"features have shape {list(rows.shape)}: expected [N, d]")
    moments = Moments(rows.shape[1])
    moments.add(rows)
    return moments


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


class MomentsSoFar(Accumulator):
    """Moments of the features: the same memory for any number of pictures."""

    key = "moments"

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._moments: Moments | None = None
        self._pending: list[NDArray[Any]] = []  # rows of a block that is not full yet

    def compute(self) -> Moments:
        """Return the moments of all pictures."""
        assert self._moments is not None
        return self._moments

    def _take(self, features: NDArray[Any]) -> None:
        """Hand on whole blocks only: so the state between them can be kept without a rounding."""
        self._moments = self._moments or Moments(features.shape[1])
        self._pending.append(features)
        waiting = sum(map(len, self._pending))
        last = self.seen + len(features) == self.count
        if waiting < BLOCK and not last:
            return
        rows = np.concatenate(self._pending)
        whole = len(rows) if last else len(rows) // BLOCK * BLOCK
        self._moments.add(rows[:whole])
        self._pending = [rows[whole:].copy()] if whole < len(rows) else []

    def _state(self) -> dict[str, NDArray[Any]]:
        arrays = {"pending": np.concatenate(self._pending)} if self._pending else {}
        return arrays | (self._moments.state() if self._moments is not None else {})

    def _restore(self, arrays: Mapping[str, NDArray[Any]], seen: int) -> None:
        pending = [arrays["pending"]] if "pending" in arrays else []
        moments = Moments.from_state(arrays)
        if moments.count + sum(map(len, pending)) != seen:
            raise ValueError
        self._moments, self._pending = moments, pending


class FrechetDistance(PictureMetric):
    """FID, by its published names and with the stand-in's features, where it is no FID."""

    kind = "fid"
    names = NAMES_OF["fid"]
    cpu_samples, gpu_samples = LEAST, PUBLISHED_FAKES

    def instead(self) -> PictureMetric:
        """Return the kernel distance: a Fréchet distance of a stand-in is no FID."""
        return KID

    def why_too_few(self, least: int, *, asked: bool) -> str | None:
        """Refuse fewer pictures than features, unless so many are asked for."""
        if asked or least >= LEAST:
            return None
        return (
            f"a FID of {plural(least, 'picture')}, fewer than {LEAST}, depends more on their "
            f"number than on "
            f"the network; give --samples {least} to measure it anyway"
        )

    def accumulator(self, task: PictureTask, count: int, extractor: Extractor) -> Accumulator:
        """Return moments, of small sets the rows."""
        return Rows(count) if max(task.fakes, task.reals) <= SMALL else MomentsSoFar(count)

    def score(
        self, task: PictureTask, reals: Any, fakes: Any, seed: int
    ) -> tuple[list[Score], dict[str, Any]]:
        """Return the distance."""
        ddof = ddof_of(task)
        distance = moments_distance if isinstance(fakes, Moments) else frechet_distance
        return [(distance(reals, fakes, ddof), None)], {"ddof": ddof}

    def meaning(self, name: str, value: float) -> str:
        """Return which way is better."""
        ending = says_stand_in(name, ", not a FID")
        return f"distance to the dataset{says_resized(name)}, lower is better{ending}"


def ddof_of(task: PictureTask) -> int:
    """Return what N is reduced by in the divisor of covariances.

    All reals with divisor N are StyleGAN2-ADA's; clean-fid divides by N - 1 throughout.
    """
    return 0 if task.full and task.network != STAND_IN and not task.clean else 1


FID = FrechetDistance()
