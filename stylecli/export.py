"""A network as a file that other programs run: ONNX, TorchScript, torch.export.

A network becomes a graph of plain operators, traced with a batch that stays free: any number of
pictures at a time. What depends on weights alone (scaled weights, kernels of upsampling, energies
of demodulation, filters) is worked out once and stands in the graph as numbers. A style multiplies
features, never kernels, so that one convolution serves the whole batch. A discriminator scores
every picture alone. Every file is run before it gets its name, with one picture and with several,
and compared with the network.
"""

import contextlib
import copy
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from stylecli import __version__, files
from stylecli.checkpoint import load_network
from stylecli.errors import NetworkError, UsageError, plural, unknown_name
from stylecli.interop.graph_files import FORMATS, RECORD
from stylecli.networks.config import NetworkConfig
from stylecli.networks.headers import network_digest
from stylecli.networks.model import Bundle, Discriminator, Generator
from stylecli.sampling import check_truncation
from stylecli.seeds import format_seeds
from stylecli.styles import style_bands

LATENTS = ("z", "ws")
NOISE = ("const", "given", "none")
PRECISIONS = ("float32", "fp16")
OPSET = 18
OPSETS = (18, 23)
"""Least and most that torch writes and onnxruntime reads."""

INSTALL = "pip install 'stylecli[export]'"
TOLERANCES = {"float32": 1e-4, "fp16": 3e-2}
"""Farthest from the network that a file may draw, as a part of the range of its pictures."""

_TRACED = 2  # pictures; so that a batch which did not stay free shows, others are checked
_MANY, _FEWER, _LARGE = 5, 3, 256  # pictures checked at a time, fewer above 256 px
_MOST_GROWTH = 4  # times what a constant is made of: a larger one is made in every run
_FREE_VALUES = 1 << 16  # that may be folded all the same
_HALF_MOST = 65504.0


@dataclass(frozen=True)
class Interface:
    """What a file takes. ``noise``: the stored maps (const), one input per layer (given), none."""

    latents: str = "z"
    noise: str = "const"
    cutoff: int | None = (
        None  # psi acts on the layers before it, 0: all; None: as the network draws
    )

    def check(self, config: NetworkConfig) -> None:
        """Raise UsageError for what there is not, or for what this network has not."""
        for given, known, what in (
            (self.latents, LATENTS, "kind of latent"), (self.noise, NOISE, "kind of noise"),
        ):  # fmt: skip
            if given not in known:
                raise UsageError(unknown_name(what, given, known))
        check_truncation(config, 1.0, self.cutoff)
        if self.noise == "given" and not config.has_noise:
            raise UsageError(
                f"configuration {config.preset!r} takes no noise: leave out --noise-mode given"
            )
        if self.cutoff is not None and "psi" not in self.inputs(config):
            nothing = f"psi cutoff {self.cutoff} acts on nothing, as the file takes no psi"
            raise UsageError(f"{nothing}: leave out --psi-cutoff {self.cutoff}")

    def inputs(self, config: NetworkConfig) -> dict[str, tuple[int | str, ...]]:
        """Return the inputs in order, by name, with their shapes; "batch" is any number."""
        if self.latents == "ws":
            found: dict[str, tuple[int | str, ...]] = {
                "ws": ("batch", config.num_ws, config.w_out_dim)
            }
        else:
            found = {"z": ("batch", config.z_dim)}
            if config.label_dim:
                found["label"] = ("batch", config.label_dim)
            if config.truncates:
                found["psi"] = (1,)
        if self.noise == "given":
            for layer, (_, *shape) in enumerate(config.noise_shapes()):
                found[f"noise_{layer}"] = ("batch", *shape)
        return found


Shapes = Mapping[str, tuple[int | str, ...]]


class Graph(nn.Module):
    """A network behind the inputs of a file: tensors in the order of ``names``, ``output`` out."""

    output: str

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes, self.names = shapes, tuple(shapes)

    def wanted(self, inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return what the network makes of inputs, and the range that errors are parts of."""
        raise NotImplementedError

    def example(self, count: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Return inputs for ``count`` pictures: those of a seed, psi 0.7."""
        random = torch.Generator().manual_seed(seed)
        found = []
        for name, shape in self.shapes.items():
            sizes = [count if size == "batch" else int(size) for size in shape]
            if name == "psi":
                found.append(torch.full((1,), 0.7))
            elif name == "label":
                found.append(torch.eye(sizes[1])[torch.arange(count) % sizes[1]])
            else:
                found.append(torch.randn(sizes, generator=random))
        return tuple(found)


class Drawing(Graph):
    """A generator: images out."""

    output = "images"

    def __init__(self, G: Generator, interface: Interface) -> None:
        super().__init__(interface.inputs(G.config))
        self.G = copy.deepcopy(G).cpu().float().eval().requires_grad_(False)
        self.interface = interface

    def forward(self, *inputs: Tensor) -> Tensor:
        """Draw images [N, C, H, W] from the tensors that ``Interface.inputs`` names."""
        given = dict(zip(self.names, inputs, strict=True))
        ws = given["ws"] if self.interface.latents == "ws" else self._map(given)
        noise = None
        if self.interface.noise == "given":
            noise = [given[name] for name in self.names if name.startswith("noise_")]
        mode = "none" if self.interface.noise == "none" else "const"
        images: Tensor = self.G.synthesis(ws, noise_mode=mode, noise=noise)
        return images

    def _map(self, given: dict[str, Tensor]) -> Tensor:
        """Return ws of z, pulled towards the centre by the tensor psi [1]."""
        mapping = self.G.mapping
        ws = mapping.broadcast(mapping.embed(given["z"], given.get("label")))
        if "psi" not in given:
            return ws
        layers = torch.arange(self.G.config.num_ws)
        cutoff = self.interface.cutoff
        inside = layers < (self.G.config.num_ws if cutoff is None else cutoff)
        strength = torch.where(inside, given["psi"], torch.ones(1))[None, :, None]
        centre = mapping.centre(ws)
        return centre + (ws - centre) * strength

    def wanted(self, inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return the network's images, and their range."""
        images = self(*inputs)
        return images, float(images.max() - images.min())


class Scoring(Graph):
    """A discriminator: logits [N, 1] out, of every picture alone.

    Minibatch statistics are those of groups of one picture, which have no deviation: a score does
    not depend on the other pictures of its batch, and the batch need not divide into groups.
    """

    output = "logits"

    def __init__(self, D: Discriminator) -> None:
        config = D.config
        shapes: dict[str, tuple[int | str, ...]] = {
            "images": ("batch", config.channels, *config.size)
        }
        if config.label_dim and getattr(config, "D_label_mode", "project") in ("project", "select"):
            shapes["label"] = ("batch", config.label_dim)
        super().__init__(shapes)
        self.D = copy.deepcopy(D).cpu().float().eval().requires_grad_(False)
        self.network = (D,)  # as it is; a tuple, so that it is no part of the graph
        for part in self.D.modules():
            if getattr(part, "group_size", 0) > 1:
                part.group_size = 1  # type: ignore[assignment]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Score images [N, C, H, W], with labels [N, label_dim] where ``names`` has them."""
        return self.D(*inputs)  # type: ignore[no-any-return]

    def wanted(self, inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return the network's own logits, one picture at a time; the largest of them, or 1."""
        ones = zip(*(torch.split(tensor, 1) for tensor in inputs), strict=True)
        logits = torch.cat([self.network[0](*one) for one in ones])
        return logits, max(1.0, float(logits.abs().max()))


# ---- the graph


def traced(drawing: Graph) -> torch.export.ExportedProgram:
    """Return a network as a graph whose batch is free and whose constants are worked out."""
    with torch.no_grad():
        batch = torch.export.Dim("batch", min=1)
        shapes = drawing.shapes.values()
        free = tuple({0: batch} if shape[0] == "batch" else {} for shape in shapes)
        given = drawing.example(_TRACED)
        program = torch.export.export(drawing, given, dynamic_shapes=(free,), strict=False)
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


def export_network(
    source: Path | str,
    target: Path | str,
    *,
    format: str,
    which: str = "G_ema",
    interface: Interface | None = None,
    precision: str = "float32",
    opset: int = OPSET,
) -> dict[str, Any]:
    """Write one network of a network file as ``format``: onnx, torchscript or torch-export.

    ``precision`` fp16 (ONNX alone) stores the weights in half the bytes; all is computed in
    float32. Returns what the file says of itself, and ``apart``: the largest difference from the
    network, as a part of the range, with one picture and with several. Raises UsageError for what
    there is not, NetworkError for a network that the file lacks, or where what was written does not
    draw the same; then there is no file.
    """
    if format not in FORMATS:
        raise UsageError(unknown_name("format", format, FORMATS))
    if format != "onnx" and precision != "float32":
        raise UsageError(f"{format} is written in float32 alone: {precision} is for onnx")
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise UsageError(f"opset {opset} is not within {OPSETS[0]} to {OPSETS[1]}")
    if precision not in PRECISIONS:
        raise UsageError(unknown_name("precision", precision, PRECISIONS))
    if format == "onnx":
        check_packages()
    bundle = load_network(source)
    drawing, told = _graph(bundle, which, interface, source)
    told |= {
        "network": which, "format": format, "precision": precision,
        "source": Path(source).name, "source_sha256": network_digest(source),
    }  # fmt: skip
    if format == "onnx":
        told["opset"] = opset
    files.check_room(Path(target), _least_bytes(drawing, precision))  # before minutes of work
    with _quietly(), torch.no_grad():
        program = traced(drawing)
        write, run = _WRITERS[format]
        content = write(program, drawing, told)
        session = run(content, drawing)
        checked = (1, _MANY if bundle.config.resolution <= _LARGE else _FEWER)
        apart = max(_apart(session, drawing, count) for count in checked)
    if not apart <= TOLERANCES[precision]:  # so that "not a number" fails
        raise NetworkError(
            f"{format} draws {source} {apart:.1e} of the range apart from the network: expected at "
            f"most {TOLERANCES[precision]:g}"
        )
    with files.room_for(Path(target), len(content)):
        files.write_bytes(target, content)
    return told | {"apart": apart, "checked": list(checked), "bytes": len(content)}


def _least_bytes(drawing: Graph, precision: str) -> int:
    """Return the bytes of the weights that every file of a network has."""
    part = drawing.G.synthesis if isinstance(drawing, Drawing) else drawing
    return sum(one.numel() for one in part.parameters()) * (2 if precision == "fp16" else 4)


def _graph(
    bundle: Bundle, which: str, interface: Interface | None, source: Path | str
) -> tuple[Graph, dict[str, Any]]:
    """Return the network to write, and what its file says of it."""
    network = getattr(bundle, which, None)
    if isinstance(network, Discriminator):
        if interface not in (None, Interface()):
            raise UsageError(
                "a discriminator takes pictures: leave out --latents, --noise-mode and --psi-cutoff"
            )
        scoring = Scoring(network)
        return scoring, description_of_scores(bundle, scoring)
    if not isinstance(network, Generator):
        raise NetworkError(
            f"{source} has no {'discriminator' if which == 'D' else 'generator'} {which}: "
            "give another --which"
        )
    how = interface or Interface()
    how.check(bundle.config)
    cutoff = bundle.config.truncation_cutoff if how.cutoff is None else how.cutoff
    how = replace(how, cutoff=min(cutoff, bundle.config.num_ws) if cutoff else None)
    return Drawing(network, how), description(bundle, how)


def description_of_scores(bundle: Bundle, scoring: Scoring) -> dict[str, Any]:
    """Return what the file of a discriminator says of itself, as ``description`` does."""
    config = bundle.config
    inputs = {name: list(shape) for name, shape in scoring.shapes.items()}
    meaning = {
        "images": "float32, -1 to 1: x = grey level / 127.5 - 1", "label": "one-hot",
        "logits": "float32 [batch, 1]: positive means real; every picture is scored alone",
    }  # fmt: skip
    told: dict[str, Any] = {
        "family": config.family, "configuration": config.preset,
        **config.grid.facts(config.resolution), "channels": config.channels,
        "label_dim": config.label_dim, "licence": bundle.licence, "inputs": inputs, "how_to_call": {
            name: text for name, text in meaning.items() if name in (*inputs, "logits")
        }, "stylecli": __version__,
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def description(bundle: Bundle, interface: Interface) -> dict[str, Any]:
    """Return what a file says of itself: plain values, in the order in which people ask."""
    config = bundle.config
    bands = {name: format_seeds(layers) for name, layers in style_bands(config.style_sides).items()}
    inputs = {name: list(shape) for name, shape in interface.inputs(config).items()}
    meaning = {
        "z": "numpy.random.RandomState(seed).randn(1, z_dim) is the seed's face",
        "ws": "one latent for every layer; bands names the layers",
        "label": "one-hot",
        "psi": f"{config.truncation_psi:g} as stylecli draws; 1 leaves latents as they are",
    }
    told: dict[str, Any] = {
        "family": config.family, "configuration": config.preset,
        **config.grid.facts(config.resolution), "channels": config.channels,
        "z_dim": config.z_dim, "label_dim": config.label_dim,
        "w_dim": config.w_out_dim if config.has_w else None,
        "num_ws": config.num_ws, "bands": bands if config.has_w else None,
        "licence": bundle.licence,
        "inputs": inputs, "noise": interface.noise if config.has_noise else None,
        "how_to_call": {name: text for name, text in meaning.items() if name in inputs} | {
            "images": f"float32 [batch, {config.channels}, {config.height}, "
            f"{config.width}], about -1 to 1: grey level = floor(127.5 * x + 128), 0 to 255",
        },
        "stylecli": __version__,
    }  # fmt: skip
    if interface.latents == "z" and config.truncates:
        told["psi_layers"] = config.num_ws if interface.cutoff is None else interface.cutoff
    return {name: value for name, value in told.items() if value is not None}


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


def _apart(run: Run, drawing: Graph, count: int) -> float:
    """Return how far what a file makes is from what the network does, as a part of the range."""
    inputs = drawing.example(count, seed=count)
    wanted, spread = drawing.wanted(inputs)
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


def _write_onnx(
    program: torch.export.ExportedProgram, drawing: Graph, told: dict[str, Any]
) -> bytes:
    made = torch.onnx.export(
        program, (), dynamo=True, opset_version=told["opset"], input_names=list(drawing.names),
        output_names=[drawing.output], external_data=False, verbose=False, optimize=False,
    )  # fmt: skip
    assert made is not None
    _tidy(made.model)
    model = made.model_proto
    _name_batch(model)
    if told["precision"] == "fp16":
        _halve(model)
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


def _name_batch(model: Any) -> None:
    """Call the free size of inputs and output "batch", as torch's numbers mean nothing."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param and size.dim_param.isidentifier():
                size.dim_param = "batch"


def _halve(model: Any) -> None:
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


def _run_onnx(content: bytes, drawing: Graph) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(inputs: Sequence[Tensor]) -> Tensor:
        named = zip(drawing.names, inputs, strict=True)
        (images,) = session.run(None, {name: value.numpy() for name, value in named})
        return torch.from_numpy(images)

    return run


# ---- TorchScript, torch.export


def _write_torchscript(
    program: torch.export.ExportedProgram, drawing: Graph, told: dict[str, Any]
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


def _run_torchscript(content: bytes, drawing: Graph) -> Run:
    script = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return lambda inputs: script(*inputs)


def _write_program(
    program: torch.export.ExportedProgram, drawing: Graph, told: dict[str, Any]
) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={RECORD: files.to_json(told).decode()})
    return buffer.getvalue()


def _run_program(content: bytes, drawing: Graph) -> Run:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda inputs: module(*inputs)


_WRITERS: dict[str, tuple[Callable[..., bytes], Callable[[bytes, Graph], Run]]] = {
    "onnx": (_write_onnx, _run_onnx),
    "torchscript": (_write_torchscript, _run_torchscript),
    "torch-export": (_write_program, _run_program),
}
