"""The low-pass filters of StyleGAN3 (Karras et al. 2021, Appendix C), designed with NumPy alone."""

import math

import numpy as np
from numpy.typing import NDArray

from stylecli.networks.stylegan3_config import LayerPlan


def layer_filters(
    plan: LayerPlan,
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return the filters before and behind a layer's activation; None where there is none."""
    before = behind = None
    if plan.up_taps > 1:
        before = design_filter(plan.up_taps, plan.in_cutoff, plan.in_half_width, plan.rate)
    if plan.down_taps > 1:
        behind = design_filter(
            plan.down_taps, plan.out_cutoff, plan.out_half_width, plan.rate, radial=plan.radial
        )
    return before, behind


def design_filter(
    taps: int, cutoff: float, half_width: float, rate: float, *, radial: bool = False
) -> NDArray[np.float64]:
    """Return a low-pass filter [taps], or [taps, taps] if radial, of sum 1.

    ``cutoff`` and ``half_width`` (of the transition band) are frequencies in the unit of ``rate``,
    the sampling rate. An ideal filter is cut short by a Kaiser window, which is as steep as the
    number of taps allows: sinc, or for the radial one jinc (Eq. 8) by the window of both axes.
    """
    window = np.kaiser(taps, kaiser_beta(taps, 2 * half_width / (rate / 2)))
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    if not radial:
        f = np.sinc(2 * cutoff * place) * window
    else:
        r = np.hypot(place[:, None], place)
        # J₁(2πfr)/(πr) goes to f in the middle.
        safe = np.where(r == 0, 1.0, r)
        f = np.where(r == 0, cutoff, bessel_j1(2 * cutoff * np.pi * safe) / (np.pi * safe))
        f = f * np.outer(window, window)
    return np.asarray(f / f.sum())


def kaiser_beta(taps: int, width: float) -> float:
    """Return the shape of Kaiser's window for a transition band ``width`` of half the rate.

    Kaiser's own fit (1974): the attenuation that so many taps reach, and the shape that gives it.
    """
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * math.pow(attenuation - 21, 0.4) + 0.07886 * (attenuation - 21)
    return 0.0


def bessel_j1(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Bessel function J₁ of x, whose absolute values are below some hundred.

    By Bessel's integral (1/π) ∫₀^π cos(t - x sin t) dt: of a periodic function, so that the mean
    over equal steps is exact to rounding once there are more of them than x has radians.
    """
    steps = 64 + 2 * math.ceil(float(np.abs(x).max(initial=0)))
    t = (np.arange(steps) + 0.5) * (2 * np.pi / steps)
    waves = np.cos(t - x[..., None] * np.sin(t))
    return np.asarray(waves.mean(axis=-1))
