"""Operators of the networks: one fused operator per file, each with a plain-PyTorch reference."""

from stylecli.lazy import lazy_attributes

_WHERE = {
    "bias_act": "stylecli.ops.activation",
    "upfirdn2d": "stylecli.ops.resampling",
    "style_epilogue": "stylecli.ops.epilogue",
}

__all__ = list(_WHERE)
__getattr__ = lazy_attributes(__name__, _WHERE)


def __dir__() -> list[str]:
    return sorted(_WHERE)
