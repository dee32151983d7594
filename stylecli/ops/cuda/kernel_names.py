"""Every kernel that the builders can ask for, and the constants both sides agree on."""

from itertools import product

TYPES = ("float", "f16", "bf16", "double")  # double exists for tests

ACTIVATION_THREADS = 128
FIR_THREADS = 256
CHUNK_THREADS = 256

PLANE_SHAPES = ((32, 8), (256, 16), (512, 32))
"""Threads and values per thread of the one-pass epilogue; their product bounds the plane."""

FIR_FACTORS = ((1, 1), (2, 1), (1, 2))
"""Pairs (up, down) of the tiled FIR kernel, alike in both directions."""

_CHUNKED = (
    "epilogue_statistics",
    "epilogue_apply",
    "epilogue_gradient_statistics",
    "epilogue_gradient_apply",
)


def plane_shapes(type_name: str) -> tuple[tuple[int, int], ...]:
    """Return the one-pass shapes of a type.

    Sixteen doubles a thread spill on sm_100, so these have more threads, and planes up to 4096.
    """
    return ((32, 8), (512, 8)) if type_name == "double" else PLANE_SHAPES


def variants(types: tuple[str, ...] = TYPES) -> dict[str, list[str]]:
    """Return the template-ids of every kernel for ``types``, by operator."""
    activation = [
        f"{name}<{kind}, {smooth}, {ACTIVATION_THREADS}>"
        for name, kind, smooth in product(("bias_act", "bias_act_gradient"), types, (0, 1))
    ]
    fir = [
        f"fir_tile<{kind}, {up}, {down}, {FIR_THREADS}>"
        for kind, (up, down) in product(types, FIR_FACTORS)
    ] + [f"fir_any<{kind}, {FIR_THREADS}>" for kind in types]
    epilogue = [
        f"{name}<{kind}, {threads}, {values}>"
        for name in ("epilogue_plane", "epilogue_plane_gradient")
        for kind in types
        for threads, values in plane_shapes(kind)
    ] + [f"{name}<{kind}, {CHUNK_THREADS}>" for name, kind in product(_CHUNKED, types)]
    return {"bias_act": activation, "upfirdn2d": fir, "style_epilogue": epilogue}
