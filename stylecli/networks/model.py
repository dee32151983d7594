"""What the networks of every family are, a generator in two halves and a discriminator; their trio.

Whoever draws, measures or trains takes these; a family derives its own and fills in the halves.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stylecli.errors import NetworkError, UsageError, plural
from stylecli.images import Pictures, make_grid, notebook_html, resize, to_uint8, visible_scale
from stylecli.networks.config import (
    MAX_RESOLUTION,
    NETWORK_NAMES,
    NetworkConfig,
    check_noise_mode,
)
from stylecli.networks.layers import check_labels, lerp, move_average
from stylecli.networks.registry import build_discriminator, build_generator, make_config
from stylecli.ops.convolution import in_quick_layout
from stylecli.shapes import parse_shape

_SHOWN = 8  # pictures that a notebook is shown; of large networks half as many
_LARGE = 256  # px


class MappingNetwork(nn.Module):
    """Latents z, and labels, to one latent per layer; a family fills in ``embed``.

    Where ``config.has_w`` it also registers the buffer ``w_avg`` [w_out_dim].
    """

    config: NetworkConfig
    w_avg: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    def embed(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Map latents [N, z_dim] (and labels [N, label_dim]) to w [N, w_out_dim], nothing else."""
        raise NotImplementedError

    def check_latents(self, z: Tensor, c: Tensor | None) -> None:
        """Raise UsageError unless z is [N, z_dim] and c as check_labels says."""
        if z.ndim != 2 or z.shape[1] != self.config.z_dim:
            raise UsageError(
                f"latents have shape {list(z.shape)}: this network needs [N, {self.config.z_dim}]"
            )
        check_labels(c, self.config.label_dim, z.shape[0])

    @torch.no_grad()
    def update_w_avg(self, w: Tensor) -> None:
        """Move w_avg, if any, towards the mean of w [N, w_dim]: lerp(mean, w_avg, w_avg_beta)."""
        if "w_avg" in self._buffers:
            mean = w.detach().mean(dim=0).to(self.w_avg.dtype)
            move_average(self.w_avg, lerp(mean, self.w_avg, self.config.w_avg_beta))

    def broadcast(self, w: Tensor) -> Tensor:
        """Repeat w [N, w_dim] for every layer: [N, num_ws, w_dim]."""
        return w.unsqueeze(1).expand(-1, self.config.num_ws, -1)

    def centre(self, ws: Tensor) -> Tensor:
        """Return what truncation pulls ws [N, num_ws, w_dim] towards, which goes with its shape."""
        return self.w_avg

    def truncate(self, ws: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Pull the first ``cutoff`` layers (None: all) towards the centre c: c + psi·(w - c)."""
        if psi == 1.0:
            return ws
        if not self.config.truncates:
            raise UsageError(
                f"configuration {self.config.preset!r} has no intermediate latent space: "
                "truncation needs one, use psi 1"
            )
        layers = torch.arange(ws.shape[1], device=ws.device)
        strength = torch.full((ws.shape[1],), psi, dtype=ws.dtype, device=ws.device)
        if cutoff is not None:
            strength = torch.where(layers < cutoff, strength, torch.ones_like(strength))
        centre = self.centre(ws)
        return centre + (ws - centre) * strength.view(1, -1, 1)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map z [N, z_dim] to one latent per layer, ws [N, num_ws, w_dim].

        In training mode also moves w_avg. Truncation acts on the first ``truncation_cutoff``
        layers, None means all. Raises UsageError for wrong shapes or labels.
        """
        w = self.embed(z, c)
        if self.training:
            self.update_w_avg(w)
        return self.truncate(self.broadcast(w), truncation_psi, truncation_cutoff)


class StyleMap(NamedTuple):
    """A dense layer of synthesis that turns one latent of ws into a layer's styles."""

    latent: int  # its place in ws
    layer: nn.Module  # with weight [styles, w_out_dim] and bias [styles] or None
    block: nn.Module  # that it belongs to, whose output are features [N, C, h, w]


class SynthesisNetwork(nn.Module):
    """One latent per layer to a picture: a family fills in ``forward``.

    forward(ws, *, noise_mode="const", noise=None, noise_scale=1.0) takes ws [N, num_ws, w_out_dim]
    and returns pictures [N, C, H, W], about -1 to 1. ``noise_mode``: const (stored maps), random,
    none; ``noise`` overrides it with one [N or 1, 1, h, w] map (None: no noise) per layer;
    ``noise_scale`` multiplies it, a number or one per layer. In growing families it also takes
    ``lod`` (None: the stored one) and ``native``: pictures at 1/2^floor(lod) of their sides.
    """

    config: NetworkConfig
    lod: float = 0.0  # the stored level of detail of growing families; 0 once fully grown

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    def check_inputs(
        self, ws: Tensor, noise_mode: str, noise: Sequence[Tensor | None] | None
    ) -> None:
        """Raise UsageError for ws, a noise mode or noise maps that this network cannot take."""
        wanted = (self.config.num_ws, self.config.w_out_dim)
        if ws.ndim != 3 or tuple(ws.shape[1:]) != wanted:
            raise UsageError(
                f"ws have shape {list(ws.shape)}: this network needs [N, {wanted[0]}, {wanted[1]}]"
            )
        check_noise_mode(noise_mode)
        if noise is None or not self.config.has_noise:
            return
        shapes = self.config.noise_shapes()
        if len(noise) != len(shapes) or any(
            plane is not None and tuple(plane.shape) not in ((ws.shape[0], *shape[1:]), shape)
            for plane, shape in zip(noise, shapes, strict=True)
        ):
            raise UsageError(
                f"noise does not fit: this network takes {len(shapes)} maps of shapes "
                f"{[list(shape) for shape in shapes]}"
            )

    def layer_scales(self, scale: float | Sequence[float]) -> list[float]:
        """Return the scale of every layer's noise; raise UsageError for another count of them."""
        count = self.config.num_layers
        if isinstance(scale, int | float):
            return [float(scale)] * count
        if len(scale) != count:
            raise UsageError(f"noise scales are {len(scale)}: this network has {count} layers")
        return [float(value) for value in scale]

    def stored_noise(self, layer: int) -> Tensor:
        """Return a layer's constant noise map [1, 1, h, w], in families that take noise."""
        raise NotImplementedError

    def style_maps(self) -> list[StyleMap]:
        """Return the maps from latents to styles, in the order in which the picture is made.

        Colours have styles too: those of the last layer alone are among them. Empty where no dense
        layer takes the latents.
        """
        return []

    def layer_noise(
        self,
        layer: int,
        like: Tensor,
        mode: str,
        noise: Sequence[Tensor | None] | None,
        scale: float,
        generator: torch.Generator | None,
    ) -> Tensor | None:
        """Return the scaled noise map of a layer for ws ``like``, None where there is none."""
        if not self.config.has_noise or scale == 0 or (noise is None and mode == "none"):
            return None
        if noise is not None:
            given = noise[layer]
            if given is None:
                return None
            plane = given.to(like)
        elif mode == "const":
            plane = self.stored_noise(layer)
        else:
            plane = torch.randn(
                (like.shape[0], 1, *self.config.layer_size(layer)), generator=generator,
                dtype=like.dtype, device=like.device,
            )  # fmt: skip
        return plane if scale == 1 else plane * scale


class Generator(nn.Module):
    """z -> picture in two halves, ``mapping`` and ``synthesis``; a family says which they are."""

    halves: ClassVar[tuple[type[MappingNetwork], type[SynthesisNetwork]]]

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        mapping, synthesis = self.halves
        self.mapping, self.synthesis = mapping(config), synthesis(config)

    @property
    def lod(self) -> float:
        """The stored level of detail, 0 once fully grown and for what does not grow."""
        return self.synthesis.lod

    @lod.setter
    def lod(self, value: float) -> None:
        self.config.check_lod(value)
        self.synthesis.lod = float(value)

    def move_pictures(
        self, translate: tuple[float, float] = (0.0, 0.0), rotate: float = 0.0
    ) -> None:
        """Turn and then shift all pictures from now on, whatever was asked for before.

        ``rotate`` in degrees counter-clockwise; ``translate`` (right, down) in widths and heights
        of the picture. Raises UsageError in a family whose pictures have a fixed place.
        """
        raise UsageError(
            f"configuration {self.config.preset!r} of {self.config.family} cannot move its "
            "pictures: leave out --translate and --rotate"
        )

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "const",
        noise: Sequence[Tensor | None] | None = None,
        noise_scale: float | Sequence[float] = 1.0,
        lod: float | None = None,
    ) -> Tensor:
        """Draw images [N, C, H, W] from z [N, z_dim]: synthesis of mapping, arguments of both."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(  # type: ignore[no-any-return]
            ws, noise_mode=noise_mode, noise=noise, noise_scale=noise_scale,
            **asked_lod(self.config, lod),
        )  # fmt: skip


class Discriminator(nn.Module):
    """D: picture -> logit; positive means real. A family fills in ``forward`` and ``outputs``.

    forward(images, c=None) scores images [N, C, H, W]: logits [N, 1]; ``c`` is one-hot
    [N, label_dim]. In growing families it also takes ``lod`` (None: the stored one) and images
    at 1/2^floor(lod) of their sides.
    """

    config: NetworkConfig
    lod: float = 0.0  # as of the generator's synthesis

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    def outputs(self, images: Tensor) -> Tensor:
        """Return all outputs [N, outputs] of the last layer, before labels are looked at."""
        raise NotImplementedError

    def check_shape(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] as they are; UsageError for another shape."""
        expected = (self.config.channels, *self.config.size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise UsageError(
                f"images have shape {list(images.shape)}: this network needs [N, "
                f"{', '.join(map(str, expected))}]"
            )
        return images

    def checked(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] in the quick layout; UsageError for another shape."""
        return in_quick_layout(self.check_shape(images))


def native_lod(config: NetworkConfig, lod: float) -> dict[str, Any]:
    """Return the arguments that ask synthesis for pictures as they are trained at ``lod``."""
    asked = asked_lod(config, lod)
    return {**asked, "native": True} if asked else {}


def asked_lod(config: NetworkConfig, lod: float | None) -> dict[str, Any]:
    """Return the argument that asks for a level of detail; none where it is None or nothing grows.

    Raises UsageError for a level that the network does not have.
    """
    if lod is None:
        return {}
    config.check_lod(lod)
    return {"lod": lod} if config.grows else {}


@dataclass(repr=False)
class Bundle:
    """Networks and what is known of them. Networks the source did not have are None."""

    config: NetworkConfig
    G_ema: Generator | None = None  # the averaged generator: what pictures are made with
    G: Generator | None = None
    D: Discriminator | None = None
    info: dict[str, Any] = field(default_factory=dict)  # provenance: kimg, data digest, licence

    @property
    def generator(self) -> Generator:
        """The generator that makes pictures: G_ema, else G."""
        generator = self.G_ema if self.G_ema is not None else self.G
        if generator is None:
            raise NetworkError("this network file holds no generator: give another --network")
        return generator

    @property
    def licence(self) -> str | None:
        """What the networks are under, as their file or its source says; None: it says nothing."""
        record = self.info.get("record")
        stored = record.get("licence") if isinstance(record, dict) else None
        for value in (self.info.get("licence"), self.info.get("source_licence"), stored):
            if isinstance(value, str) and value:
                return value
        return None

    def facts(self) -> dict[str, str]:
        """Return what people ask first, in words: the configuration, sizes, how it was trained."""
        config = self.config
        colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(config.channels, f"{config.channels} ch.")
        classes = f", {plural(config.label_dim, 'class', 'classes')}" if config.label_dim else ""
        latents = f"z {config.z_dim}, " + (
            f"w {config.w_out_dim} x {config.num_ws} layers" if config.has_w else "no w"
        )
        sizes = ", ".join(
            f"{name} {sum(parameter.numel() for parameter in network.parameters()):,}"
            for name in NETWORK_NAMES
            if (network := getattr(self, name)) is not None
        )
        found = {
            "pictures": f"{config.size} px {colours}{classes}",
            "latents": latents,
            "parameters": sizes or "none",
        }
        if isinstance(kimg := self.info.get("kimg"), int | float):
            found["trained for"] = f"{kimg:g} kimg"
        if licence := self.licence:
            found["licence"] = licence
        return found

    def __repr__(self) -> str:
        """Return a few lines: what the networks are, not their layers."""
        lines = [f"  {name}: {value}" for name, value in self.facts().items()]
        return "\n".join([f"<{self._title()}", *lines]) + ">"

    def _title(self) -> str:
        return f"network {self.config.preset!r} of {self.config.family}"

    def _repr_html_(self) -> str:
        """Return the same for a notebook, with pictures of the first seeds."""
        return notebook_html(self._title(), self.facts(), self._preview())

    def _preview(self) -> Pictures | None:
        """Draw the first seeds at the usual truncation, 128 px each; None without a generator."""
        G = self.G_ema if self.G_ema is not None else self.G
        if G is None:
            return None
        count = _SHOWN if self.config.resolution <= _LARGE else _SHOWN // 2
        z = [np.random.RandomState(seed).randn(self.config.z_dim) for seed in range(count)]
        first = next(G.parameters())
        psi, cutoff = self.config.truncation_psi, self.config.truncation_cutoff
        classes = [seed % max(1, self.config.label_dim) for seed in range(count)]
        with torch.inference_mode():
            c = torch.eye(self.config.label_dim)[classes] if self.config.label_dim else None
            ws = G.mapping(
                torch.from_numpy(np.stack(z)).float().to(first.device),
                None if c is None else c.to(first.device),
                truncation_psi=psi, truncation_cutoff=cutoff,
            )  # fmt: skip
            pictures = [to_uint8(G.synthesis(row[None]))[0] for row in ws]  # one at a time: memory
        size = self.config.size_at(min(self.config.resolution, 128))
        scale = visible_scale(max(size))
        return make_grid([resize(picture, *size) for picture in pictures], count, scale=scale)


def new_network(
    preset: str = "f", *, seed: int = 0, shape: str | None = None, **fields: Any
) -> Bundle:
    """Make freshly initialised networks of a configuration: ``a`` to ``f``, ``traditional-8``, ...

    ``fields`` replace fields of its family: resolution, channels, z_dim, w_dim, label_dim,
    mapping_layers, mapping_fmaps, fmap_base, fmap_max, fused_scale, mbstd_group_size, ... The same
    seed gives the same weights; the global random state is left alone. G_ema is an equal copy of
    G; all are in eval mode, on the CPU, in float32. ``shape`` is that of the pictures, width to
    height, such as ``4:3``, whose shorter side ``resolution`` then is. Raises UsageError for bad
    names or values.
    """
    if shape is not None:
        fields["base"] = grid = parse_shape(shape)
        if "resolution" in fields:
            fields["resolution"] = grid.level_with(fields["resolution"], MAX_RESOLUTION)
    config = make_config(preset, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = build_generator(config)
        D = build_discriminator(config)
    G_ema = copy.deepcopy(G)
    for network in (G, D, G_ema):
        network.eval()
    return Bundle(config, G_ema=G_ema, G=G, D=D, info={"seed": seed})
