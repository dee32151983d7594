"""What stands in for CUDA graphs on a processor: operators recorded, and done again as they were.

A graph knows the memory that kernels were given and the numbers of the host at that time, nothing
else. Nor does a tape: it holds every operator below autograd with the tensors and numbers that it
was called with. Done again, it writes its results to where they were the first time.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Records what a graph could capture; a number for the host, or a drawn one, is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "equal", "nonzero", "is_nonzero"):
            raise RuntimeError(f"the host waits for {name} in what is captured")
        random = ("normal_", "uniform_", "random_", "randn", "rand", "randint", "bernoulli")
        if name.startswith(random) or kwargs.get("generator") is not None:
            raise RuntimeError(f"{name} draws numbers in what is captured")
        made = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, made))
        return made

    @torch.no_grad()
    def again(self) -> None:
        """Do everything again, in the same memory."""
        for func, args, kwargs, made in self.calls:
            returned = func._schema.returns
            alias = returned[0].alias_info if returned else None
            if func._schema.is_mutable:
                func(*args, **kwargs)
            elif alias is None:  # no view, whose memory is that of another
                found = func(*args, **kwargs)
                for old, new in zip(tree_leaves(made), tree_leaves(found), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


class Tapes:
    """A recorder of tapes. To record is to do it once, which the first replay then leaves out."""

    def __init__(self) -> None:
        self.captured = self.replayed = self.forgotten = 0

    def aside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        tape, done = Tape(), True
        with tape:
            work()
        self.captured += 1

        def replay() -> None:
            nonlocal done
            if done:
                done = False
                return
            tape.again()
            self.replayed += 1

        return replay

    def forget(self) -> None:
        self.forgotten += 1
