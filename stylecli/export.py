"""A network as a file that other programs run: ONNX, TorchScript, torch.export.

A network becomes a graph of plain operators: scaled weights, kernels of upsampling, energies of
demodulation and filters stand in it as numbers. A style multiplies features, never kernels, so that
one convolution serves the whole batch. A discriminator scores every picture alone. The networks
that metrics look at pictures with can be written too.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylecli import __version__
from stylecli.checkpoint import load_network
from stylecli.errors import NetworkError, UsageError, unknown_name
from stylecli.features.efficientnet import RESIZE as EFFICIENTNET_RESIZE
from stylecli.features.efficientnet import EfficientNetLite0
from stylecli.features.extractors import INCEPTION, VGG16_FC2
from stylecli.features.inception import RESIZE as INCEPTION_RESIZE
from stylecli.features.inception import InceptionV3
from stylecli.features.perceptual import LPIPS_NETWORK
from stylecli.features.vgg16 import LPIPS, MIN_SIDE, VGG16
from stylecli.features.vgg16 import RESIZE as VGG16_RESIZE
from stylecli.graphs import OPSET, Form, Graph, Shapes, write_graph
from stylecli.interop.feature_weights import obtain
from stylecli.networks.config import NetworkConfig
from stylecli.networks.headers import network_digest
from stylecli.networks.model import Bundle, Discriminator, Generator
from stylecli.sampling import check_truncation
from stylecli.seeds import format_seeds
from stylecli.styles import style_bands
from stylecli.weights import find_feature_network, is_published, read_record

LATENTS = ("z", "ws")
NOISE = ("const", "given", "none")

_MANY, _FEWER, _LARGE = 5, 3, 256  # pictures checked at a time, fewer above 256 px


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

    @property
    def least_values(self) -> int:
        """How many numbers the synthesis has: a file that takes ws has no mapping."""
        return sum(one.numel() for one in self.G.synthesis.parameters())

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


class Looking(Graph):
    """A feature network: features [N, d] of uint8 pictures [N, 3, H, W], which it resizes."""

    output = "features"

    def __init__(
        self, forward: Callable[..., Tensor], measured: Callable[..., Tensor], values: int
    ) -> None:
        """Take the computation to trace, the one that metrics use, and its number of weights."""
        super().__init__(self._inputs())
        self._forward, self._measured, self._values = forward, measured, values

    def _inputs(self) -> Shapes:
        return {"images": ("batch", 3, "height", "width")}

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return features of the tensors that ``names`` names."""
        return self._forward(*inputs)

    @property
    def least_values(self) -> int:
        """How many weights it has."""
        return self._values

    def wanted(self, inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return features as metrics have them; the largest."""
        features = self._measured(*inputs)
        return features, float(features.abs().max())

    def drawn(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        """Return pictures of random grey levels."""
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)


class Comparing(Looking):
    """LPIPS: the distance [N] of pictures a and b, float32 [N, 3, H, W] of -1 to 1."""

    output = "distance"
    least = 2 * MIN_SIDE  # torch would fix the size of what is one pixel after four halvings

    def _inputs(self) -> Shapes:
        shape = ("batch", 3, "height", "width")
        return {"a": shape, "b": shape}

    def drawn(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        """Return pictures of random values."""
        return torch.rand(shape, generator=random) * 2 - 1


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
    form = Form(format, precision, opset)
    form.check()
    bundle = load_network(source)
    graph, told = _graph(bundle, which, interface, source)
    told |= {
        "network": which, "source": Path(source).name, "source_sha256": network_digest(source)
    }  # fmt: skip
    counts = (1, _MANY if bundle.config.resolution <= _LARGE else _FEWER)
    return write_graph(graph, told, Path(target), form, counts, str(source))


def export_features(
    name: str, target: Path | str, *, format: str, precision: str = "float32", opset: int = OPSET
) -> dict[str, Any]:
    """Write a feature network, by its name in ``weights.NETWORKS``, as ``export_network`` does.

    ``apart`` is a part of the largest feature, or distance. Raises UsageError for what there is
    not, WeightsError where its weights are not on this machine.
    """
    form = Form(format, precision, opset)
    form.check()
    known = find_feature_network(name)
    arrays, sha256 = obtain(name)
    record = read_record(name)
    graph, resize = _looking(name, arrays)
    meaning = {
        "images": f"uint8, grey levels 0 to 255, of any size. The file resizes them: {resize}",
        "a": f"float32, about -1 to 1: grey level / 127.5 - 1; at least {Comparing.least} px",
        "b": "as a, of the same size", "features": "float32 [batch, features]",
        "distance": "float32 [batch]: of each picture of a from the one of b",
    }  # fmt: skip
    told = {
        "network": name, "what": known.what, "licence": known.licence,
        "inputs": {each: list(shape) for each, shape in graph.shapes.items()},
        "how_to_call": {
            each: text for each, text in meaning.items() if each in (*graph.names, graph.output)
        },
        "source": record.file if record else known.files[0].name, "source_sha256": sha256,
        "published": is_published(name, sha256), "stylecli": __version__,
    }  # fmt: skip
    return write_graph(graph, told, Path(target), form, (1, _MANY), name)


def _looking(name: str, arrays: Mapping[str, Any]) -> tuple[Looking, str]:
    """Return a feature network as a graph, and how it resizes pictures.

    What is traced is made again each time, as a network keeps the kernels of its first pictures.
    """
    values = sum(array.size for array in arrays.values())
    if name == INCEPTION:
        inception = InceptionV3.from_state_dict(arrays)
        looking = Looking(
            lambda images: inception.to("cpu").forward(images, ["2048"])["2048"],
            lambda images: inception(images, outputs=["2048"])["2048"],
            values,
        )
        return looking, INCEPTION_RESIZE
    if name == LPIPS_NETWORK:
        lpips = LPIPS.from_state_dict(arrays)
        return Comparing(lambda a, b: lpips.to("cpu").forward(a, b), lpips, values), ""
    network, resize = (
        (VGG16.from_state_dict(arrays), VGG16_RESIZE)
        if name == VGG16_FC2
        else (EfficientNetLite0.from_state_dict(arrays), EFFICIENTNET_RESIZE)
    )
    return Looking(
        lambda images: network.to("cpu").forward(images), network.features, values
    ), resize


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
