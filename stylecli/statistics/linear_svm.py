"""Linear support vector machines, solved to the optimum: the same answer on every run.

Minimises ½‖w‖² + ½b² + C Σ max(0, 1 - y(w·x + b))², the objective of scikit-learn's ``LinearSVC``
at its defaults (C = 1, squared hinge, the bias a column of ones that is regularised too), which
the separability of StyleGAN is defined with. Its coordinate descent stops at a tolerance and draws
an order; this stops at the minimum.

The objective is strictly convex with a piecewise linear gradient, so Newton's method with a
generalised Hessian reaches the minimum in finitely many steps (Keerthi and DeCoste 2005). The
Hessian I + 2C Σ xxᵀ over the points inside the margin is kept from step to step: only points that
crossed the margin are added or taken away.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError
from stylecli.statistics.arrays import Float64, as_features

_MAX_STEPS = 200  # five to fifteen are usual
_MAX_HALVINGS = 50
_GRADIENT_SHARE = 1e-12  # of the gradient at the start: rounding of float64 sums of many points
_ROWS = 8192  # of points that cross the margin, at a time: bounds the copies


@dataclass(frozen=True)
class LinearSVM:
    """A hyperplane: points with x·weights + bias > 0 are of the class."""

    weights: Float64  # [d]
    bias: float
    steps: int  # of Newton's method


def fit_linear_svm(points: Any, positive: Any, *, C: float = 1.0) -> LinearSVM:
    """Return the hyperplane between points [N, d] that are ``positive`` (bool [N]) and the rest.

    Raises UsageError for other shapes, values that are not finite, C that is not positive, or
    points of one class only.
    """
    (svm,) = fit_one_vs_rest(points, np.where(np.asarray(positive, bool), 0, 1), [0], C=C)
    return svm


def fit_one_vs_rest(
    points: Any,
    classes: Any,
    wanted: list[int],
    *,
    C: float = 1.0,
) -> list[LinearSVM]:
    """Return for each class in ``wanted`` the hyperplane between it and all other points.

    ``points`` [N, d]; ``classes`` [N] are numbers. Raises UsageError as ``fit_linear_svm``.
    """
    x = as_features("points", points, 2)
    labels = np.asarray(classes)
    if labels.shape != (len(x),):
        raise UsageError(f"classes have shape {list(labels.shape)}: expected [{len(x)}]")
    if not C > 0:
        raise UsageError(f"C {C} is not positive")
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # [N, d + 1], the bias last
    whole = x.T @ x  # at the start every point is inside the margin, whatever its class
    found = []
    for number in wanted:
        inside = labels == number
        if inside.all() or not inside.any():
            raise UsageError(f"all points are on one side of class {number}: expected two classes")
        solution, steps = _minimise(x, np.where(inside, 1.0, -1.0), C, whole)
        found.append(LinearSVM(solution[:-1], float(solution[-1]), steps))
    return found


def svm_classes(points: Any, svms: list[LinearSVM]) -> NDArray[np.int64]:
    """Return for every point [N, d] which hyperplane puts it farthest inside its class.

    One hyperplane gives 0 (inside) or 1; several give the number of the largest value, as
    one-vs-rest classification does.
    """
    x = as_features("points", points)
    values = np.stack([x @ svm.weights + svm.bias for svm in svms], axis=1)  # [N, K]
    if len(svms) == 1:
        return (values[:, 0] <= 0).astype(np.int64)
    best: NDArray[np.int64] = values.argmax(axis=1)
    return best


def objective(points: Any, positive: Any, svm: LinearSVM, *, C: float = 1.0) -> float:
    """Return what is minimised: ½‖w‖² + ½b² + C Σ max(0, 1 - y(w·x + b))²."""
    signs = np.where(np.asarray(positive, bool), 1.0, -1.0)
    margins = signs * (as_features("points", points) @ svm.weights + svm.bias)
    return _value(np.append(svm.weights, svm.bias), margins, C)


def _minimise(x: Float64, signs: Float64, C: float, whole: Float64) -> tuple[Float64, int]:
    """Return (w with the bias last, steps); ``whole`` is XᵀX."""
    w = np.zeros(x.shape[1])
    margins = np.zeros(len(x))  # y(w·x)
    inside = np.ones(len(x), bool)
    inner = whole.copy()  # Σ xxᵀ over the points inside the margin
    target = 0.0
    for step in range(_MAX_STEPS):
        gradient = w - 2.0 * C * (x.T @ (signs * np.maximum(1.0 - margins, 0.0)))
        size = float(np.abs(gradient).max())
        target = target or _GRADIENT_SHARE * size
        if size <= target:
            return w, step
        hessian = np.eye(len(w)) + 2.0 * C * inner
        direction: Float64 = -np.linalg.solve(hessian, gradient).astype(np.float64, copy=False)
        change = signs * (x @ direction)
        length = _step_length(w, direction, margins, change, C, float(gradient @ direction))
        if not length:  # no representable step goes down: this is the minimum to the last bit
            return w, step
        w, margins = w + length * direction, margins + length * change
        now = margins < 1.0
        crossed = np.flatnonzero(now != inside)
        if not len(crossed) and length == 1.0:  # a quadratic, solved exactly
            return w, step + 1
        for start in range(0, len(crossed), _ROWS):
            rows = crossed[start : start + _ROWS]
            part = x[rows]
            inner += part.T @ (part * np.where(now[rows], 1.0, -1.0)[:, None])
        inside = now
    return w, _MAX_STEPS


def _step_length(
    w: Float64,
    direction: Float64,
    margins: Float64,
    change: Float64,
    C: float,
    slope: float,
) -> float:
    """Halve from a whole step until the objective falls enough (Armijo); 0 when it never does."""
    before = _value(w, margins, C)
    length = 1.0
    for _ in range(_MAX_HALVINGS):
        after = _value(w + length * direction, margins + length * change, C)
        if after <= before + 1e-4 * length * slope:
            return length
        length /= 2.0
    return 0.0


def _value(w: Float64, margins: Float64, C: float) -> float:
    short = np.maximum(1.0 - margins, 0.0)
    return float(0.5 * (w @ w) + C * (short @ short))
