"""What the drawing commands share: the network, its defaults, truncation and noise."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.output import Output
from stylecli.cli.refusals import check_words, find_and_check
from stylecli.errors import UsageError, unknown_name
from stylecli.networks.config import NetworkConfig
from stylecli.provenance import make_provenance, shown_path
from stylecli.styles import layer_strengths

if TYPE_CHECKING:
    from torch import Tensor

    from stylecli.distributed.ranks import Ranks
    from stylecli.networks.model import Bundle
    from stylecli.sampling import Drawing

LabelOption = Annotated[
    int | None,
    typer.Option(
        "--class", "--label", min=0, help="Class to draw. Default: the classes in turn, by seed."
    ),
]
PsiLayersOption = Annotated[
    str | None,
    typer.Option(
        "--psi-layers",
        help="Truncation of single layers or bands, such as coarse:1,4-5:0.7; others keep --psi.",
        metavar="LAYERS:PSI,...",
    ),
]
CenterOption = Annotated[
    str | None,
    typer.Option(
        "--center",
        help="Truncate towards a seed (42), a class (class:3), each picture's own class (class) or "
        "a file of styles. Default: the average face.",
        metavar="SEED|class|FILE",
    ),
]
NoiseModeOption = Annotated[
    str | None,
    typer.Option("--noise-mode", help="const, random or none. Default const.", metavar="MODE"),
]
LodOption = Annotated[
    float | None,
    typer.Option(
        "--lod", min=0, help="Halve the resolution this many times. Default: the network's."
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="float32, bf16 (less exact) or auto (the faster of the two). Default float32.",
    ),
]
TranslateOption = Annotated[
    str | None,
    typer.Option(
        "--translate",
        help="StyleGAN3: shift pictures right and down, in their width, such as 0.25,0.",
        metavar="X,Y",
    ),
]
RotateOption = Annotated[
    float | None,
    typer.Option("--rotate", help="StyleGAN3: turn pictures counter-clockwise, in degrees."),
]
ScaleOption = Annotated[
    int | None, typer.Option("--scale", min=1, help="Enlarge every picture by whole pixels.")
]


def folder_of(network: Path) -> Path:
    """Return where what is made of a network goes unless told otherwise: out/<run>-<kimg>."""
    name = network.stem
    if name.startswith("network-snapshot-"):
        run = network.resolve().parent
        owner = run.parent.name if run.name == "run" else run.name
        name = f"{owner}-{name.removeprefix('network-snapshot-')}"
    return Path("out") / name


@dataclass(frozen=True)
class OpenedNetwork:
    """A network ready to draw, and what its pictures will say of it."""

    bundle: "Bundle"
    path: Path
    digest: str  # SHA-256 of the file
    device: str
    note: Callable[[str], None] = lambda text: None  # says which reading of a file was taken

    @property
    def config(self) -> NetworkConfig:
        return self.bundle.config

    @property
    def folder(self) -> Path:
        """Where pictures of this network go unless told otherwise: out/<run>-<kimg>."""
        return folder_of(self.path)

    def resolve_precision(self, wanted: str | None, force: bool) -> str | None:
        """Return what --precision comes to where this network draws; None where it is not given.

        Raises UsageError for bf16 where it is slower, unless ``force``.
        """
        if wanted is None:
            return None
        import torch

        from stylecli.hardware import AUTO, choose_precision

        chosen = choose_precision(wanted, torch.device(self.device), force=force)
        if wanted == AUTO:
            self.note(f"precision: {chosen}, the quicker one here")
        return chosen

    def provenance(
        self, command: str, settings: Mapping[str, Any], *,
        arguments: Sequence[str] = (), inputs: Mapping[str, Path] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return what a file made by ``command`` with ``settings`` carries; see make_provenance."""
        return make_provenance(
            command, self.path, self.digest, settings, arguments=arguments, inputs=inputs
        )


def open_source(network: Path | None, device: str, output: Output) -> OpenedNetwork:
    """Load the network that was given or found, onto its device; say which was found."""
    check_words(device=device)
    found = find_and_check(network, output)
    from stylecli.weights import remember_digest

    with ThreadPoolExecutor(1) as beside:  # hashing lets go of Python while torch loads
        digest = beside.submit(remember_digest, found.path)
        from stylecli.checkpoint import load_network
        from stylecli.hardware import resolve_device

        chosen = resolve_device(device)
        bundle = load_network(found.path, drawing=True)
        bundle.generator.to(chosen)
    return OpenedNetwork(bundle, found.path, digest.result(), str(chosen), output.note)


def move_pictures(
    source: OpenedNetwork, translate: str | None, rotate: float | None
) -> dict[str, Any]:
    """Turn and shift what the network draws, as asked; return the settings that say so.

    Raises UsageError for what is no such move, and for a network that cannot.
    """
    if translate is None and rotate is None:
        return {}
    try:
        numbers = [float(word) for word in (translate or "0,0").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise UsageError(
            f"--translate {translate} is not two numbers: expected X,Y, such as 0.25,0"
        )
    if rotate is not None and not math.isfinite(rotate):
        raise UsageError(f"--rotate {rotate} is not a number of degrees: try --rotate 90")
    source.bundle.generator.move_pictures((numbers[0], numbers[1]), rotate or 0.0)
    return {"translate": translate, "rotate": rotate}


def agree_on_precision(wanted: str, device: str, force: bool, ranks: "Ranks") -> str:
    """Return what --precision comes to on the main process's device: names of results say it."""
    if wanted == "float32":
        return wanted
    from stylecli.hardware import choose_precision, resolve_device

    return str(ranks.from_main(choose_precision(wanted, resolve_device(device), force=force)))


@dataclass(frozen=True)
class Truncation:
    """What --psi, --psi-cutoff, --psi-layers and --center come to for a network."""

    psi: float | list[float]  # one, or one per layer
    psi_cutoff: int | None
    centre: "Tensor | None"
    settings: dict[str, Any]  # the options that give exactly this
    inputs: dict[str, Path]  # the files among them

    def drawing(self, **how: Any) -> "Drawing":
        """Return how to draw with it; raise UsageError for what no network follows.

        ``how`` are other fields of Drawing; those that are None keep its defaults.
        """
        from stylecli.sampling import Drawing

        given = {name: value for name, value in how.items() if value is not None}
        return Drawing(psi=self.psi, psi_cutoff=self.psi_cutoff, centre=self.centre, **given)


def resolve_truncation(
    source: OpenedNetwork, psi: float | None, psi_cutoff: int | None,
    psi_layers: str | None = None, center: str | None = None,
) -> Truncation:  # fmt: skip
    """Return the truncation that options ask for; the network's own where they say nothing.

    Raises UsageError where the network has no w, or no such layer or class.
    """
    config = source.config
    for option, value in (("--psi-layers", psi_layers), ("--center", center)):
        if value is not None and not config.has_w:
            raise UsageError(
                f"{option} {value} needs an intermediate latent space, and configuration "
                f"{config.preset!r} has none: leave it out"
            )
    strength, cutoff = truncation(config, psi, psi_cutoff)
    chosen: float | list[float] = strength
    settings = truncation_settings(strength, cutoff)
    if psi_layers is not None:
        from stylecli.sampling import layer_psis

        chosen = layer_psis(config, strength, cutoff)
        for layer, own in layer_strengths(psi_layers, config.style_sides).items():
            chosen[layer] = own
        settings["psi_layers"] = psi_layers
    centre, inputs = None, {}
    if center is not None:
        from stylecli.sampling import find_centre

        centre = find_centre(source.bundle, center, tell=source.note)
        if not center.isdecimal() and center.partition(":")[0] != "class":  # then it is a file
            inputs["center"] = Path(center)
        settings["center"] = shown_path(inputs["center"]) if inputs else center
    return Truncation(chosen, cutoff, centre, settings, inputs)


def truncation(
    config: NetworkConfig, psi: float | None, psi_cutoff: int | None
) -> tuple[float, int | None]:
    """Return (psi, cutoff) from --psi and --psi-cutoff: the network's own where not given."""
    strength = psi if psi is not None else config.truncation_psi if config.has_w else 1.0
    if strength == 1:
        return 1.0, None
    cutoff = config.truncation_cutoff if psi_cutoff is None else psi_cutoff
    return strength, cutoff or None


def truncation_settings(psi: float, cutoff: int | None) -> dict[str, Any]:
    """Return the options that give exactly this truncation, for a file's provenance."""
    return {"psi": psi, "psi_cutoff": None if psi == 1 else cutoff or 0}


def resolve_noise(noise_mode: str | None, noise_seed: int | None) -> str:
    """Return the noise mode; --noise-seed means random, and contradicts the other modes."""
    mode = noise_mode or ("const" if noise_seed is None else "random")
    if mode not in ("const", "random", "none"):
        raise UsageError(unknown_name("noise mode", mode, ("const", "random", "none")))
    if noise_seed is not None and mode != "random":
        raise UsageError(f"--noise-seed {noise_seed} needs --noise-mode random, not {mode}")
    return mode
