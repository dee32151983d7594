"""What the drawing commands share: the network, its defaults, truncation and noise."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli import shipped
from stylecli.cli.faces import check_faces, is_photograph, is_seed, project_once
from stylecli.cli.options import (
    BatchOption,
    DeviceOption,
    ForceOption,
    JsonOption,
    NetworkOption,
    PsiCutoffOption,
    PsiOption,
    QuietOption,
    with_parameters,
)
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_files, check_words, find_and_check
from stylecli.errors import UsageError
from stylecli.latents import parse_edits
from stylecli.networks.config import NetworkConfig, check_noise_mode
from stylecli.provenance import make_provenance, shown_path
from stylecli.styles import layer_strengths
from stylecli.workspace import folder_of

if TYPE_CHECKING:
    from stylecli.data.alignment.portrait import Portrait
    from stylecli.distributed.ranks import Ranks
    from stylecli.images import Canvas
    from stylecli.latents.directions import Directions
    from stylecli.networks.model import Bundle
    from stylecli.rendering import Drawing, Edits

LabelOption = Annotated[
    int | None,
    typer.Option(
        "--class", "--label", min=0, help="Class to draw. Default: the classes in turn, by seed."
    ),
]
ClassOption = Annotated[
    int | None,
    typer.Option(
        "--class", "--label", min=0,
        help="Class to search in. Default: the mean of all classes in w; class 0 in z.",
    ),
]  # fmt: skip
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
        help="Truncate towards a seed (42), a class (class:3), each picture's own class (class), "
        "a file of styles or a photograph. Default: the average face.",
        metavar="SEED|class|FILE",
    ),
]
EditOption = Annotated[
    str | None,
    typer.Option(
        "--edit",
        help="Move all faces along directions, such as smile:+2,hair@4-7:-1; see stylecli "
        "directions list.",
        metavar="NAME:STRENGTH,...",
    ),
]
DirectionsOption = Annotated[
    Path | None,
    typer.Option(
        "--directions",
        help="With --edit: their file. Default: what stylecli directions find wrote.",
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
NoiseSeedOption = Annotated[
    int | None,
    typer.Option("--noise-seed", min=0, help="One noise for all pictures; implies random noise."),
]
NoiseScaleOption = Annotated[
    float | None,
    typer.Option("--noise-scale", help="Strength of the noise: 0 is none, 1 the network's own."),
]
ScaleOption = Annotated[
    int | None, typer.Option("--scale", min=1, help="Enlarge every picture by whole pixels.")
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        help="Fit into width x height, such as 1080x1080 or 1080x1920, with margins in the mean "
        "colour.",
        metavar="WxH",
    ),
]
CropOption = Annotated[
    bool, typer.Option("--crop", help="With --size: fill it, and cut off what does not fit.")
]
PixelsOption = Annotated[
    bool,
    typer.Option(
        "--pixels", help="With --size: repeat whole pixels instead of enlarging smoothly."
    ),
]
# Where options stand in the help; all others are where a command has ``how``.
_FIRST = ("network",)
_LAST = ("batch", "device", "precision", "json", "force", "quiet")
# What a file's record has in another way, or does not have, as it changes no picture.
_NOT_SETTINGS = {"psi", "psi_cutoff", "batch", "device"}


@dataclass(frozen=True)
class OpenedNetwork:
    """A network ready to draw, and what its pictures will say of it."""

    bundle: "Bundle"
    path: Path
    digest: str  # SHA-256 of the file
    device: str
    output: Output = field(default_factory=lambda: Output(quiet=True))

    def note(self, text: str) -> None:
        """Say something useful, such as which reading of a file was taken."""
        self.output.note(text)

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

    def find_directions(self, given: Path | None = None) -> "Directions":
        """Return this network's directions; see ``latents.directions.find_directions``."""
        from stylecli.latents.directions import find_directions

        return find_directions(self.folder, self.digest, self.config, given)

    def read_portrait(
        self, path: Path, *, align: bool = True, detector: str = "auto",
        mask: Path | None = None,
    ) -> "Portrait":  # fmt: skip
        """Return a photograph as this network would draw it; see ``data.alignment.portrait``."""
        from stylecli.data.alignment.portrait import read_portrait

        config = self.config
        return read_portrait(
            path, config.size, config.channels, align=align, detector=detector, mask=mask,
        )  # fmt: skip

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
    bundle, digest = load_and_hash(found.path)
    from stylecli.hardware import resolve_device

    chosen = resolve_device(device)
    bundle.generator.to(chosen)
    return OpenedNetwork(bundle, found.path, digest, str(chosen), output)


def load_and_hash(path: Path) -> "tuple[Bundle, str]":
    """Return a network to draw with, and its file's SHA-256, which is computed while torch loads.

    Raises NetworkError where the file is none.
    """
    from stylecli.weights import remember_digest

    with ThreadPoolExecutor(1) as beside:  # hashing lets go of Python
        digest = beside.submit(remember_digest, path)
        from stylecli.checkpoint import load_network

        return load_network(path, drawing=True), digest.result()


@dataclass(frozen=True)
class OpenedDrawing:
    """A network, and how to draw with it, as options ask for."""

    source: OpenedNetwork
    drawing: "Drawing"
    settings: dict[str, Any]  # the options that give exactly these pictures
    inputs: dict[str, Path]  # the files among them


@dataclass(frozen=True)
class DrawingOptions:
    """How to draw, as a command line says it: every field is an option of the drawing commands.

    One that ``Drawing`` has by the same name goes there, and into the record of what is drawn.
    """

    network: NetworkOption = None
    psi: PsiOption = None
    psi_cutoff: PsiCutoffOption = None
    psi_layers: PsiLayersOption = None
    center: CenterOption = None
    edit: EditOption = None
    directions: DirectionsOption = None
    label: LabelOption = None
    noise_mode: NoiseModeOption = None
    noise_seed: NoiseSeedOption = None
    noise_scale: NoiseScaleOption = None
    lod: LodOption = None
    translate: TranslateOption = None
    rotate: RotateOption = None
    scale: ScaleOption = None
    size: SizeOption = None
    crop: CropOption = False
    pixels: PixelsOption = False
    batch: BatchOption = None
    device: DeviceOption = "auto"
    precision: PrecisionOption = None
    json: JsonOption = False
    force: ForceOption = False
    quiet: QuietOption = False

    def output(self) -> Output:
        """Return where results and notes go."""
        return Output(json=self.json, quiet=self.quiet)

    def check(self) -> None:
        """Raise UsageError, before torch loads, for what no network can follow."""
        resolve_noise(self.noise_mode, self.noise_seed)
        resolve_canvas(self.size, self.crop, self.pixels, self.scale)
        check_edit(self.edit, self.directions)
        check_words(device=self.device, precision=self.precision)
        _check_center(self.center)

    def open(self, output: Output, *, usual_psi: float | None = None) -> OpenedDrawing:
        """Open the network and resolve for it how to draw.

        ``usual_psi`` is taken where no option speaks of psi; None: the network's own. Raises
        UsageError for what this network cannot follow.
        """
        return self.draw_with(open_source(self.network, self.device, output), usual_psi)

    def draw_with(self, source: OpenedNetwork, usual_psi: float | None = None) -> OpenedDrawing:
        """Resolve for an opened network how to draw; see ``open``."""
        truncation, settings, inputs = _truncation(source, self, usual_psi)
        edits, edited, edit_inputs = resolve_edit(source, self.edit, self.directions)
        canvas, sized = resolve_canvas(self.size, self.crop, self.pixels, self.scale)
        from stylecli.rendering import Drawing

        own = {field.name for field in fields(self)} - _NOT_SETTINGS
        how = {field.name: getattr(self, field.name) for field in fields(Drawing)
               if field.name in own}  # fmt: skip
        how["noise_mode"] = resolve_noise(self.noise_mode, self.noise_seed)
        how["precision"] = source.resolve_precision(self.precision, self.force)
        moved = move_pictures(source, self.translate, self.rotate)
        given = {name: value for name, value in how.items() if value is not None}
        return OpenedDrawing(
            source,
            Drawing(**truncation, **given, edits=edits, batch=self.batch, canvas=canvas),
            {**settings, **edited, **how, "device": source.device, **sized, **moved},
            inputs | edit_inputs,
        )


USUAL_DRAWING = DrawingOptions()


def takes_drawing(
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    instead: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of ``DrawingOptions``, which it gets as ``how``.

    ``only`` these or all ``without`` some; ``instead`` has the annotation of options by which the
    command means something else.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        taken = {
            field.name: inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default,
                annotation=instead.get(field.name, field.type),
            )
            for field in fields(DrawingOptions)
            if field.name not in without and (not only or field.name in only)
        }  # fmt: skip
        here = [item for name, item in taken.items() if name not in (*_FIRST, *_LAST)]
        parameters = [taken[name] for name in _FIRST]
        for name, own in inspect.signature(command).parameters.items():
            placed = here if name == "how" else [own.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
            parameters += placed
        parameters += [taken[name] for name in _LAST if name in taken]

        @functools.wraps(command)
        def run(**options: Any) -> None:
            command(how=DrawingOptions(**{name: options.pop(name) for name in taken}), **options)

        return with_parameters(run, parameters)

    return decorate


def check_edit(edit: str | None, directions: Path | None) -> None:
    """Raise, before torch loads, for an edit that cannot be read and for files that are missing."""
    if edit is None and directions is not None:
        raise UsageError(f"--directions {directions} is for edits: add --edit, such as smile:+2")
    if edit is not None:
        parse_edits(edit)
    check_directions(directions)


def check_directions(path: Path | None) -> None:
    """Raise, before torch loads, for a file of directions that is missing."""
    if path != Path(shipped.NAME):
        check_files(directions=path)


def resolve_edit(
    source: OpenedNetwork, edit: str | None, given: Path | None
) -> "tuple[Edits | None, dict[str, Any], dict[str, Path]]":
    """Return what --edit adds to styles, the settings that say so, and the file it is from.

    Raises UsageError for an unknown direction, NetworkError where this network has none.
    """
    if edit is None:
        return None, {}, {}
    from stylecli.latents.directions import resolve

    parts = parse_edits(edit)
    directions = source.find_directions(given)
    assert directions.path is not None
    settings = {"edit": ",".join(map(str, parts)), "directions": shown_path(directions.path)}
    return resolve(parts, directions), settings, {"directions": directions.path}


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


def _truncation(
    source: OpenedNetwork, how: DrawingOptions, usual_psi: float | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Path]]:
    """Return (fields of Drawing, the options that give them, the files among these).

    The network's own psi and cutoff where nothing is said. Raises UsageError where the network has
    no w, or no such layer or class.
    """
    config = source.config
    for option, value in (("--psi-layers", how.psi_layers), ("--center", how.center)):
        if value is not None and not config.has_w:
            raise UsageError(
                f"{option} {value} needs an intermediate latent space, and configuration "
                f"{config.preset!r} has none: leave it out"
            )
    psi = usual_psi if how.psi is None and how.psi_layers is None else how.psi
    psi = psi if psi is not None else config.truncation_psi if config.has_w else 1.0
    cutoff = config.truncation_cutoff if how.psi_cutoff is None else how.psi_cutoff
    cutoff = None if psi == 1 else cutoff or None  # 0 is all layers
    given: dict[str, Any] = {"psi": psi, "psi_cutoff": cutoff}
    settings: dict[str, Any] = {"psi": psi, "psi_cutoff": None if psi == 1 else cutoff or 0}
    if how.psi_layers is not None:
        from stylecli.sampling import layer_psis

        given["psi"] = layer_psis(config, psi, cutoff)
        for layer, own in layer_strengths(how.psi_layers, config.style_sides).items():
            given["psi"][layer] = own
        settings["psi_layers"] = how.psi_layers
    inputs = {}
    if how.center is not None:
        from stylecli.sampling import find_centre

        center = how.center
        known = center
        if not is_seed(center) and not _names_class(center):  # then it is a file
            inputs["center"] = Path(center)
            if is_photograph(center):
                inputs["center_ws"] = project_once(source, Path(center)).path
                known = str(inputs["center_ws"])
        given["centre"] = find_centre(source.bundle, known, tell=source.note)
        settings["center"] = shown_path(inputs["center"]) if inputs else center
    return given, settings, inputs


def _check_center(center: str | None) -> None:
    """Raise UsageError or DataError, before torch loads, for a word that names no centre."""
    if center is None or _names_class(center):
        return
    if center.strip().startswith("-") and is_seed(center.strip()[1:]):
        raise UsageError(f"--center {center} is not a seed: expected 0 or more, class, or a file")
    check_faces("--center", [center], "a seed, a class, styles or a photograph")


def _names_class(center: str) -> bool:
    return center.partition(":")[0] == "class"


def resolve_noise(noise_mode: str | None, noise_seed: int | None) -> str:
    """Return the noise mode; --noise-seed means random, and contradicts the other modes."""
    mode = noise_mode or ("const" if noise_seed is None else "random")
    check_noise_mode(mode)
    if noise_seed is not None and mode != "random":
        raise UsageError(f"--noise-seed {noise_seed} needs --noise-mode random, not {mode}")
    return mode


def resolve_canvas(
    size: str | None, crop: bool, pixels: bool, scale: int | None
) -> tuple["Canvas | None", dict[str, Any]]:
    """Return the size that --size asks for, if any, and the options that give it again."""
    if size is None:
        for option, given in (("--crop", crop), ("--pixels", pixels)):
            if given:
                raise UsageError(f"{option} needs a size: add --size, such as --size 1080x1080")
        return None, {}
    if scale is not None:
        raise UsageError(f"--size {size} and --scale {scale} both set the size: give one of them")
    match = re.fullmatch(r"(\d{1,5})\s*[xX×]\s*(\d{1,5})", size.strip())
    if match is None or not int(match[1]) or not int(match[2]):
        raise UsageError(f"cannot read size {size!r}: expected width x height, such as 1080x1920")
    from stylecli.images import Canvas

    canvas = Canvas(int(match[1]), int(match[2]), crop=crop, pixels=pixels)
    settings = {
        "size": f"{canvas.width}x{canvas.height}", "crop": crop or None, "pixels": pixels or None
    }  # fmt: skip
    return canvas, settings
