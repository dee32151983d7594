"""Updates captured once and replayed: on CUDA a graph each, launched in one go by the host.

Below 128 px a GPU is quicker than the host that launches its hundreds of kernels. A graph takes its
operands where they lay when it was captured, so all that moves from step to step lies in memory
of its own: pictures, labels, random numbers (``draws.HeldDraws``), rates and the share of a fade
(``schedule.Dials``). They are brought there before a replay, as the plain step has them, and
nothing else is carried over: a run with graphs resumes, and continues without, with the same
numbers.

What is captured holds for one shape of a stage: side, whether it fades in, batch, passes.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from stylecli.errors import DeviceError
from stylecli.hardware import widest_float
from stylecli.training.draws import HeldDraws
from stylecli.training.gradients import Totals
from stylecli.training.schedule import Dials, Rates

WARM_UPS = 2  # plain runs of an update first: kernels are compiled, cuDNN tries its algorithms
Work = Callable[[], None]


class Recorder(Protocol):
    """What captures work: it returns what has the device do all of that again."""

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """Surround every step, captured or not."""

    def capture(self, work: Work) -> Work:
        """Call ``work`` to see what it launches; nothing of that is done before the replay."""

    def forget(self) -> None:
        """Let go of all that was captured."""


class CudaGraphs:
    """Captures CUDA graphs, which share their memory: of two only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: list[torch.cuda.CUDAGraph] = []

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Be on a stream other than the usual one, which cannot be captured.

        Plain steps are taken on it too, so that the backward pass finds its streams as they were.
        """
        usual = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(usual)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            usual.wait_stream(self._stream)

    def capture(self, work: Work) -> Work:
        """Return the replay of a graph of what ``work`` launches.

        Other threads meanwhile read and pin the next batch, which only a capture of this thread
        alone allows.
        """
        graph = torch.cuda.CUDAGraph()
        pool = self._graphs[0].pool() if self._graphs else None
        with torch.cuda.graph(
            graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            work()
        self._graphs.append(graph)
        return graph.replay

    def forget(self) -> None:
        """Give the graphs' memory back."""
        for graph in self._graphs:
            graph.reset()
        self._graphs = []


@dataclass(frozen=True)
class Part:
    """A part of an update: captured, or called every time, as an exchange of ranks is."""

    work: Work
    captured: bool = True


@dataclass
class HeldUpdate:
    """One update of a stage: plain at first, then captured, from then on replayed."""

    draws: HeldDraws
    runs: int = 0
    # of its parts, each with what it counts on the host
    replays: list[tuple[Work, list[float]]] = field(default_factory=list)


class CaptureError(DeviceError):
    """A part of an update cannot be captured: of the ``rest`` nothing has been done."""

    def __init__(self, message: str, rest: Sequence[Part]) -> None:
        super().__init__(message)
        self.rest = rest


class StepGraphs:
    """What the captured updates of a stage read, and these updates."""

    def __init__(self, device: torch.device, recorder: Recorder, *, beta2_moves: bool) -> None:
        self.device, self.recorder, self.beta2_moves = device, recorder, beta2_moves
        self.capturing = False
        self._shape: Hashable = None
        self._set: Dials | None = None  # what the tensors of ``dials`` hold
        self._start()

    def _start(self) -> None:
        self.updates: dict[Hashable, HeldUpdate] = {}
        self.inputs: dict[str, Tensor] = {}
        self._fakes: dict[Any, Tensor] = {}  # every update draws its own into them
        self.dials: Dials | None = None

    def begin(self, shape: Hashable, dials: Dials, **inputs: Tensor | None) -> None:
        """Take in a step's pictures, labels and numbers; of another ``shape``, begin afresh."""
        if shape != self._shape:
            self.forget()
            self._shape = shape
        for name, given in inputs.items():
            if given is None:
                continue
            held = self.inputs.get(name)
            if held is None:
                held = self.inputs[name] = torch.empty_like(given, device=self.device)
            held.copy_(given, non_blocking=True)
        self._turn(dials)

    def forget(self) -> None:
        """Drop what was captured, and the memory that it reads."""
        self.recorder.forget()
        self._shape = None
        self._start()

    def update(self, key: Hashable) -> HeldUpdate:
        """Return one of the stage's updates."""
        if key not in self.updates:
            self.updates[key] = HeldUpdate(HeldDraws(fakes=self._fakes))
        return self.updates[key]

    def run(self, update: HeldUpdate, parts: Sequence[Part], totals: Totals) -> None:
        """Do all parts of an update in their order, plainly or by what was captured of them.

        ``totals`` counts, on the host, what they add up. Raises CaptureError.
        """
        update.runs += 1
        if update.replays:
            for replay, added in update.replays:
                replay()
                totals.counts = [a + b for a, b in zip(totals.counts, added, strict=True)]
        elif update.runs <= WARM_UPS:
            for part in parts:
                part.work()
        else:
            update.replays = self._capture(parts, totals)

    def _capture(self, parts: Sequence[Part], totals: Totals) -> list[tuple[Work, list[float]]]:
        """Capture an update and do it, part by part."""
        made = []
        for index, part in enumerate(parts):
            replay, before = part.work, list(totals.counts)
            if part.captured:
                self.capturing = True
                try:
                    replay = self.recorder.capture(part.work)
                except (RuntimeError, MemoryError) as error:
                    totals.counts = before
                    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
                    raise CaptureError(
                        f"a training step cannot be captured on {self.device} ({why}): leave "
                        "graphs out of --accelerate",
                        parts[index:],
                    ) from error
                finally:
                    self.capturing = False
            added = [a - b for a, b in zip(totals.counts, before, strict=True)]
            replay()
            made.append((replay, added))
        return made

    def _turn(self, dials: Dials) -> None:
        """Bring numbers that have moved to the device; those that stay ask for nothing."""
        if self.dials is None:
            self.dials = self._held(dials)
        elif self._set is not None:
            for name in ("r1", "r2", "average", "fade"):
                _fill(getattr(self.dials, name), getattr(self._set, name), getattr(dials, name))
            for name in ("G", "D"):
                held, before, now = (getattr(one, name) for one in (self.dials, self._set, dials))
                for rate in fields(Rates):
                    _fill(*(getattr(one, rate.name) for one in (held, before, now)))
        self._set = dials

    def _held(self, dials: Dials) -> Dials:
        """Return numbers on the device; a β2 that never moves stays what it is."""
        wide = widest_float(self.device)

        def number(value: float | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
            assert not isinstance(value, Tensor)
            return torch.full((), value, dtype=dtype, device=self.device)

        def rates(given: Rates) -> Rates:
            beta2 = number(given.beta2, wide) if self.beta2_moves else given.beta2
            return Rates(number(given.lr, wide), given.beta1, beta2)

        return Dials(
            rates(dials.G), rates(dials.D), number(dials.r1), number(dials.r2),
            number(dials.average), number(dials.fade, wide),
        )  # fmt: skip


def _fill(held: Any, before: float, now: float) -> None:
    if isinstance(held, Tensor) and now != before:
        held.fill_(now)
