"""A module as a graph in a file: ONNX, TorchScript, torch.export.

It is traced with a batch that stays free: any number of pictures at a time. What depends on weights
alone is worked out once and stands in the graph as numbers. Every file is run before it gets its
name, with one picture and with several, and compared with the module.
"""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from stylecli import __version__, files
from stylecli.errors import NetworkError, UsageError, plural, unknown_name
from stylecli.interop.graph_files import FORMATS, RECORD

PRECISIONS = ("float32", "fp16")
OPSET = 18
OPSETS = (18, 23)
"""Least and most that torch writes and onnxruntime reads."""

INSTALL = "pip install 'stylecli[export]'"
TOLERANCES = {"float32": 1e-4, "fp16": 3e-2}
"""Farthest from the network that a file may draw, as a part of the range of its pictures."""

_TRACED = 2  # pictures; so that a batch which did not stay free shows, others are checked
_MOST_GROWTH = 4  # times what a constant is made of: a larger one is made in every run
_FREE_VALUES = 1 << 16  # that may be folded all the same
_HALF_MOST = 65504.0


Shapes = Mapping[str, tuple[int | str, ...]]


class Graph(nn.Module):
    """A network behind the inputs of a file: tensors in the order of ``names``, ``output`` out.

    Sizes that have a name are free: "batch" is any number, others are at least ``least``.
    """

    output: str
    least = 1

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes, self.names = shapes, tuple(shapes)

    @property
    def least_values(self) -> int:
        """How many numbers every file of the network holds, at least."""
        return sum(one.numel() for one in self.parameters())

    def wanted(self, inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return what the network makes of inputs, and the range that errors are parts of."""
        raise NotImplementedError

    def example(self, count: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Return inputs for ``count`` pictures: those of a seed, psi 0.7."""
        random = torch.Generator().manual_seed(seed)
        free = {"batch": count, "height": self.least + 4 * count, "width": self.least + 3 * count}
        found = []
        for name, sizes in self.shapes.items():
            shape = tuple(free[size] if isinstance(size, str) else size for size in sizes)
            if name == "psi":
                found.append(torch.full((1,), 0.7))
            elif name == "label":
                found.append(torch.eye(shape[1])[torch.arange(count) % shape[1]])
            else:
                found.append(self.drawn(shape, random))
        return tuple(found)

    def drawn(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        """Return an input of this shape at random."""
        return torch.randn(shape, generator=random)


# ---- tracing


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """Return a network as a program whose batch is free and whose constants are worked out."""
    with torch.no_grad():
        names = {size for shape in graph.shapes.values() for size in shape if isinstance(size, str)}
        least = {name: 1 if name == "batch" else graph.least for name in names}
        free_sizes = {name: torch.export.Dim(name, min=least[name]) for name in names}
        free = tuple(
            {place: free_sizes[size] for place, size in enumerate(shape) if isinstance(size, str)}
            for shape in graph.shapes.values()
        )
        given = graph.example(_TRACED)
        program = torch.export.export(graph, given, dynamic_shapes=(free,), strict=False)
        module = program.run_decompositions({}).module(check_guards=False)
        assert isinstance(module, fx.GraphModule)
        folded = fold_constants(module)
        program = torch.export.export(folded, given, dynamic_shapes=free, strict=False)
    for node in program.graph.nodes:  # a file does not say where this program lay
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(name, None)
    return program


def fold_constants(module: fx.GraphModule) -> fx.GraphModule:
    """Replace what follows from weights alone by its values, in place; return the module."""
    known: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)  # it would keep alive the weight that it looks at
        elif node.op == "get_attr":
            known[node] = _attribute(module, str(node.target))
        elif node.op == "call_function" and all(one in known for one in node.all_input_nodes):
            value = _value(node, known)
            if value is not None:
                known[node] = value
    count = 0
    for node, value in known.items():
        if node.op == "get_attr" or all(user in known for user in node.users):
            continue
        name = f"folded_{count}"
        count += 1
        module.register_buffer(name, value)
        with module.graph.inserting_before(node):
            replacement = module.graph.get_attr(name)
        replacement.meta = dict(node.meta)
        node.replace_all_uses_with(replacement)
    module.graph.eliminate_dead_code()
    _drop_unused(module)
    module.recompile()
    return module


def _attribute(module: nn.Module, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _value(node: fx.Node, known: dict[fx.Node, Any]) -> Tensor | None:
    """Work a node out; None where it is random, no tensor, or much larger than what it is of."""
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return None
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
    assert callable(node.target)
    value = node.target(*args, **kwargs)
    if not isinstance(value, Tensor):
        return None
    before = sum(one.numel() for one in map(known.get, node.all_input_nodes) if one is not None)
    if value.numel() > max(_FREE_VALUES, _MOST_GROWTH * before):
        return None
    return value.contiguous()


def _drop_unused(module: fx.GraphModule) -> None:
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*module.named_parameters(), *module.named_buffers())]:
        if name not in used:
            owner, _, last = name.rpartition(".")
            delattr(module.get_submodule(owner), last)
    module.graph.owning_module = module
    module.delete_all_unused_submodules()


# ---- files


@dataclass(frozen=True)
class Form:
    """How a graph is written. ``precision`` fp16 (ONNX alone): weights in half the bytes."""

    format: str  # onnx, torchscript or torch-export
    precision: str = "float32"
    opset: int = OPSET  # of ONNX

    def check(self) -> None:
        """Raise UsageError for what there is not, or what needs a package that is missing."""
        if self.format not in FORMATS:
            raise UsageError(unknown_name("format", self.format, FORMATS))
        if self.format != "onnx" and self.precision != "float32":
            raise UsageError(
                f"{self.format} is written in float32 alone: {self.precision} is for onnx"
            )
        if not OPSETS[0] <= self.opset <= OPSETS[1]:
            raise UsageError(f"opset {self.opset} is not within {OPSETS[0]} to {OPSETS[1]}")
        if self.precision not in PRECISIONS:
            raise UsageError(unknown_name("precision", self.precision, PRECISIONS))
        if self.format == "onnx":
            check_packages()


def write_graph(
    graph: Graph, told: dict[str, Any], target: Path, form: Form, counts: Sequence[int], name: str
) -> dict[str, Any]:
    """Write a graph that says ``told`` of itself; return that, and how it was checked.

    It is run with every number of pictures in ``counts``. ``apart`` is then the largest difference
    from the network, which errors call ``name``, as a part of the range. Raises NetworkError where
    what was written does not make the same; then there is no file.
    """
    told = told | {"format": form.format, "precision": form.precision}
    if form.format == "onnx":
        told["opset"] = form.opset
    half = 2 if form.precision == "fp16" else 4
    files.check_room(target, graph.least_values * half)  # before minutes of work
    with _quietly(), torch.no_grad():
        program = traced(graph)
        write, run = _WRITERS[form.format]
        content = write(program, graph, told)
        session = run(content, graph)
        apart = max(_apart(session, graph, count) for count in counts)
    if not apart <= TOLERANCES[form.precision]:  # so that "not a number" fails
        raise NetworkError(
            f"{form.format} draws {name} {apart:.1e} of the range apart from the network: expected "
            f"at most {TOLERANCES[form.precision]:g}"
        )
    with files.room_for(target, len(content)):
        files.write_bytes(target, content)
    return told | {"apart": apart, "checked": list(counts), "bytes": len(content)}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what torch says of its own parts while it traces and writes."""
    import logging

    noisy = logging.getLogger("torch.onnx")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(before)


Run = Callable[[Sequence[Tensor]], Tensor]


def _apart(run: Run, graph: Graph, count: int) -> float:
    """Return how far what a file makes is from what the network does, as a part of the range."""
    inputs = graph.example(count, seed=count)
    wanted, spread = graph.wanted(inputs)
    if not torch.isfinite(wanted).all():
        raise NetworkError("the network itself draws what is not a number: give another snapshot")
    found = run(inputs)
    if found.shape != wanted.shape:
        raise NetworkError(
            f"the file makes {list(found.shape)} where {plural(count, 'picture')} were asked for: "
            f"expected {list(wanted.shape)}"
        )
    return float(((found - wanted).abs().max() / max(spread, 1e-6)).nan_to_num(nan=torch.inf))


# ---- ONNX


def check_packages() -> None:
    """Raise UsageError where a package that writes or runs ONNX is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"the package {name} is not installed, run: {INSTALL}")


def _write_onnx(program: torch.export.ExportedProgram, graph: Graph, told: dict[str, Any]) -> bytes:
    made = torch.onnx.export(
        program, (), dynamo=True, opset_version=told["opset"], input_names=list(graph.names),
        output_names=[graph.output], external_data=False, verbose=False, optimize=False,
    )  # fmt: skip
    assert made is not None
    _tidy(made.model)
    model = made.model_proto
    _name_sizes(model, graph.shapes)
    if told["precision"] == "fp16":
        halve(model)
    model.producer_name, model.producer_version = "stylecli", __version__
    for name, value in (told | {RECORD: told}).items():
        entry = model.metadata_props.add()
        entry.key = name
        entry.value = value if isinstance(value, str) else files.to_json(value).decode()
    content: bytes = model.SerializeToString()
    return content


def _tidy(model: Any) -> None:
    """Put operators in the place of torch's functions, and work out what needs no input.

    torch would also apply the rules of onnxscript, of which one takes x + 1e-8 for x: then a map in
    which all pixels are equal becomes "not a number" when it is normalised.
    """
    from onnxscript import optimizer

    optimizer.inline(model)
    optimizer.fold_constants(model, input_size_limit=1 << 10, output_size_limit=1 << 10)
    optimizer.remove_unused_nodes(model)
    for value in (*model.graph, *model.graph.initializers.values()):
        value.metadata_props.clear()  # the lines of source that made it


def _name_sizes(model: Any, shapes: Shapes) -> None:
    """Call free sizes what the inputs call them; torch's numbers mean nothing."""
    names = {}
    for value in model.graph.input:
        for size, name in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if size.dim_param:
                names[size.dim_param] = name
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = names.get(size.dim_param, "")


def halve(model: Any) -> None:
    """Store weights as float16, each followed by its way back to float32."""
    import onnx
    from onnx import numpy_helper

    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = (
            numpy_helper.to_array(tensor) if tensor.data_type == onnx.TensorProto.FLOAT else None
        )
        if values is None or values.size < 2 or abs(values).max() > _HALF_MOST:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}_half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)
        )
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *rest])


def _run_onnx(content: bytes, graph: Graph) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(inputs: Sequence[Tensor]) -> Tensor:
        named = zip(graph.names, inputs, strict=True)
        (images,) = session.run(None, {name: value.numpy() for name, value in named})
        return torch.from_numpy(images)

    return run


# ---- TorchScript, torch.export


def _write_torchscript(
    program: torch.export.ExportedProgram, graph: Graph, told: dict[str, Any]
) -> bytes:
    script = torch.jit.script(_plain(program))
    buffer = io.BytesIO()
    torch.jit.save(script, buffer, _extra_files={RECORD: files.to_json(told)})
    return buffer.getvalue()


def _plain(program: torch.export.ExportedProgram) -> nn.Module:
    """Return a program as a module that TorchScript can read: operators by name, sizes by asking.

    It is read, not traced: a trace would keep the batch that it saw.
    """
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    graph = module.graph
    graph.set_codegen(fx.graph.CodeGen())
    for node in graph.nodes:
        if node.op == "call_function" and node.target is torch.ops.aten.sym_size.int:
            node.op, node.target = "call_method", "size"
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
        elif node.op == "output":
            ((images,),) = node.args
            node.args = (images,)
    return fx.GraphModule(module, graph)


def _run_torchscript(content: bytes, graph: Graph) -> Run:
    script = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return lambda inputs: script(*inputs)


def _write_program(
    program: torch.export.ExportedProgram, graph: Graph, told: dict[str, Any]
) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={RECORD: files.to_json(told).decode()})
    return buffer.getvalue()


def _run_program(content: bytes, graph: Graph) -> Run:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda inputs: module(*inputs)


_WRITERS: dict[str, tuple[Callable[..., bytes], Callable[[bytes, Graph], Run]]] = {
    "onnx": (_write_onnx, _run_onnx),
    "torchscript": (_write_torchscript, _run_torchscript),
    "torch-export": (_write_program, _run_program),
}
