"""How one operator's kernels fare on a device: checked and timed, whatever comes of it."""

from typing import Any

import torch

from stylecli.ops.cuda import bandwidth, selfcheck


def examine_operator(
    name: str, device: torch.device, dtype: str, *, measured: bool = True
) -> dict[str, Any]:
    """Check operator ``name`` on a device in a dtype, and time it if ``measured``.

    Returns plain values. Always: operator, dtype, device, works. Then ``reason`` where it does not
    work; else errors, largest_error, allowed, and gb_s {forward, backward: {fused, plain}} (empty,
    with the ``reason``, where timing failed). Raises nothing for what the kernels do.
    """
    kind: torch.dtype = getattr(torch, dtype)
    row: dict[str, Any] = {"operator": name, "dtype": dtype, "device": str(device), "works": False}
    try:
        errors = selfcheck.check_operator(name, device, kind)
        row.update(
            works=True,
            errors=errors,
            largest_error=max(errors.values()),
            allowed=selfcheck.TOLERANCES[kind],
        )
        if measured:
            row["gb_s"] = {}
            for one in bandwidth.measure_operator(name, device, kind):
                figures = {"fused": round(one.fused_gb_s), "plain": round(one.plain_gb_s)}
                row["gb_s"][one.direction] = figures
    except Exception as error:
        row["reason"] = str(error) or type(error).__name__
    return row
