"""The drawing commands as Python functions: arrays and iterators where a command writes files.

Names, arguments and defaults are the commands', but for two: psi is 1.0, no truncation, where a
command takes the network's own (0.7), and nothing is found in the working folder: the network is
given, loaded or as a path.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from stylecli import shipped
from stylecli.checkpoint import Network, open_network
from stylecli.data.alignment.portrait import check_picture, read_portrait, read_small
from stylecli.errors import UsageError
from stylecli.hardware import Precision
from stylecli.images import Pictures
from stylecli.latents import (
    BOUND,
    CANDIDATES,
    SHARPENING_STEPS,
    STARTS,
    Method,
    Motion,
    Space,
    format_edits,
    parse_edits,
)
from stylecli.latents.directions import Directions, read_directions, resolve
from stylecli.latents.projector import Projecting, Projection, Projector
from stylecli.latents.sharpening import Candidate, Sharpener, Sharpening
from stylecli.latents.walks import Route, draw_walk
from stylecli.networks.config import NetworkConfig, NoiseMode
from stylecli.networks.headers import network_digest
from stylecli.networks.model import Bundle
from stylecli.progress import Progress, silent
from stylecli.rendering import Drawing, Edits, Psi
from stylecli.sampling import VARY, check_drawing, draw_seeds, find_centre
from stylecli.seeds import format_seeds, list_seeds
from stylecli.sheets.fakes import lay_out_fakes
from stylecli.sheets.mixing import (
    Faces,
    Sources,
    draw_mixing_sheet,
    join_sources,
    name_faces,
    open_sources,
)
from stylecli.sheets.paper import describe_lack, draw_figure, figure_settings, find_figures
from stylecli.styles import band_rows, holds_styles, style_layers
from stylecli.workspace import find_network

Seeds = int | str | Iterable[int]  # one, several, or text such as "0,4-7"
Face = int | str | Path | Projection  # a seed, a file of styles, or what project found
Center = Tensor | int | str | Path | None  # what to truncate towards
Edit = str | Mapping[str, float] | None  # "smile:+2", or strengths by name
USUAL = 5  # rows and columns of a mix


class How(TypedDict, total=False):
    """How pictures are drawn; what is left out is as in ``stylecli.generate``."""

    psi: Psi  # truncation; 1.0 is none, a command's default is 0.7
    psi_cutoff: int | None  # of the first so many layers
    center: Center  # towards this w, seed, "class", "class:3" or file of styles
    edit: Edit  # move all faces along directions: "smile:+2,pose:-1"
    directions: Path | str | Directions | None  # their file; None: those that come with stylecli
    label: int | None  # class to show
    noise_mode: NoiseMode
    noise_seed: int | None
    noise_scale: float | Sequence[float]
    lod: float | None
    scale: int | None  # enlarge by whole pixels; None: so that small pictures can be looked at
    batch: int | None
    device: str | torch.device | None  # the generator goes there first
    precision: Precision


def generate(
    net: Network,
    seeds: Seeds,
    psi: Psi = 1.0,
    *,
    psi_cutoff: int | None = None,
    center: Center = None,
    edit: Edit = None,
    directions: Path | str | Directions | None = None,
    label: int | None = None,
    noise_mode: NoiseMode = "const",
    noise_seed: int | None = None,
    noise_scale: float | Sequence[float] = 1.0,
    lod: float | None = None,
    batch: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
    like: int | None = None,
    vary: float = VARY,
) -> Iterator[tuple[int, Pictures]]:
    """Draw the picture of every seed; yield (seed, uint8 [H, W, C]) in order.

    ``net`` is what load_network returns, or a path to a network or a run. ``seeds`` is one, several
    or text such as "0,4-7". ``psi`` pulls styles towards the average face, or ``center``, in the
    first ``psi_cutoff`` layers (None: all); several numbers are one per layer. 1.0 is no
    truncation; the command draws with the network's own, 0.7. ``center`` is a w [1, w_dim], a seed,
    "class", "class:3" or a file of styles. ``edit`` moves all faces along directions, such as
    "smile:+2,pose:-1", of a file that ``stylecli directions find`` wrote.
    ``label`` is a class number; without it a labelled network shows its classes in turn.
    ``noise_mode`` "random" draws noise from the picture's own seed, or from ``noise_seed``.
    ``like`` is a seed whose face the pictures keep, but for a share ``vary`` of their own.
    Leave the network unchanged while pictures are being taken. ``device`` moves the generator
    first; ``precision`` "bf16" is quicker and a little less exact. Raises UsageError for settings
    the network cannot follow.
    """
    bundle = open_network(net)
    return draw_seeds(
        bundle,
        list_seeds(seeds),
        Drawing(
            psi=psi, psi_cutoff=psi_cutoff, centre=_centre(bundle, center), label=label,
            edits=_edits(net, bundle.config, edit, directions), noise_mode=noise_mode,
            noise_seed=noise_seed, noise_scale=noise_scale, lod=lod,
            batch=batch, device=device, precision=precision,
        ),
        like, vary,
    )  # fmt: skip


def grid(
    net: Network,
    seeds: Seeds = "0-15",
    columns: int | None = None,
    *,
    labels: bool = True,
    padding: int = 0,
    progress: Progress = silent,
    **how: Unpack[How],
) -> Pictures:
    """Draw the pictures of seeds in one sheet, uint8 [H, W, C], as ``generate --grid`` does.

    ``net`` is what load_network returns, or a path to a network or a run. Rows have ``columns``
    pictures, by default about as many as there are rows; ``labels`` writes the seeds below.
    ``how`` is that of ``generate``: psi
    (1.0; the command's is 0.7), psi_cutoff, center, label, noise_mode, noise_seed, noise_scale,
    lod, scale, batch, device, precision. Raises UsageError for what the network cannot follow.
    """
    bundle = open_network(net)
    chosen, drawing = list_seeds(seeds), _drawing(net, bundle, how)
    pictures: list[Pictures] = []
    for _, picture in draw_seeds(bundle, chosen, drawing):
        pictures.append(picture)
        progress(len(pictures), len(chosen))
    names = [str(seed) for seed in chosen] if labels else []
    return lay_out_fakes(pictures, columns, scale=drawing.scale, padding=padding, names=names)


def mix(
    net: Network,
    rows: Seeds | Face | Sequence[Face] = USUAL,
    cols: Seeds | Face | Sequence[Face] = USUAL,
    *,
    styles: str | Sequence[int] = "coarse",
    bands: str | None = None,
    labels: bool = True,
    padding: int | None = None,
    progress: Progress = silent,
    **how: Unpack[How],
) -> Pictures:
    """Draw a style-mixing sheet, uint8 [H, W, C]: every row's face with styles of every column.

    ``rows`` and ``cols`` are counts where they are one number, else seeds ([7] or "7," is one), or
    faces: seeds, files of styles such as "photo.npz" and what ``stylecli.project`` found, one or
    several. A projected photograph is drawn with its noise unless ``how`` has a noise mode.
    ``styles`` are those taken from the columns: "coarse", "middle", "fine", "0-3" or numbers of
    layers; ``bands`` such as "coarse:3,middle:2,fine:1" makes Figure 3 of the paper instead, a
    band for each row. (The command draws a sheet for each of the three where it is told nothing.)
    ``labels`` writes seeds and bands into the margins; ``how`` is that of ``grid``. Raises
    UsageError for a network without styles and layers that it lacks.
    """
    bundle = open_network(net)
    sides = bundle.config.style_sides
    drawing = _drawing(net, bundle, how)
    banded = band_rows(bands, sides) if bands and ":" in bands else None
    own_noise = not {"noise_mode", "noise_seed"} & how.keys()
    own = _sources(bundle, rows, 0, drawing, own_noise, banded)
    others = _sources(bundle, cols, len(own) if _is_count(rows) else 0, drawing, own_noise)
    layers: Sequence[int] | list[list[int]]
    if bands is not None:
        layers = band_rows(bands, sides, len(own))
    else:
        text = styles if isinstance(styles, str) else format_seeds(styles)
        layers = style_layers(text, sides)
    return draw_mixing_sheet(bundle.generator, own, others, layers, drawing, padding=padding,
                             names=labels, progress=progress)  # fmt: skip


def interpolate(
    net: Network,
    seeds: Seeds | Tensor = "0-5",
    *,
    seconds: float | None = None,
    key_seconds: float = 2.0,
    fps: float = 30.0,
    space: Space | None = None,
    method: Method | None = None,
    loop: bool = True,
    grid: tuple[int, int] = (1, 1),
    classes: Sequence[int] | None = None,
    psi_to: float | None = None,
    pulses: int | None = None,
    noise_motion: Motion = "still",
    noise_seconds: float = 1.0,
    **how: Unpack[How],
) -> Iterator[Pictures]:
    """Return an iterator over the frames, uint8 [H, W, C], of a walk from face to face.

    ``seeds`` may be saved styles ws [K, num_ws, w_dim] as well; one seed with several ``classes``
    walks from class to class. The walk takes ``seconds``, or ``key_seconds`` from face to face, at
    ``fps`` frames a second, and ends where it began unless ``loop`` is False. Options are those of
    ``stylecli interpolate``; ``how`` is that of ``grid``. ``stylecli.video.write_video`` makes a
    file of the frames. Raises UsageError for what does not fit.
    """
    bundle = open_network(net)
    keys = seeds if isinstance(seeds, Tensor) else list_seeds(seeds)
    cells = max(1, grid[0] * grid[1])
    stops = max(1, len(classes) if classes and len(keys) == cells else len(keys) // cells)
    length = seconds if seconds is not None else key_seconds * (stops if loop else stops - 1)
    frames = max(1, round(length * fps))
    if not 0 < fps <= 1000 or length < 0:
        raise UsageError(
            f"{length:g} seconds at {fps:g} frames a second make no video: expected more than 0"
        )
    draws = max(4, round(frames / fps / noise_seconds))
    return draw_walk(
        bundle.generator, keys, frames, Route(space, method, loop, psi_to, pulses),
        _drawing(net, bundle, how), grid=grid, labels=classes, noise_motion=noise_motion,
        noise_draws=draws,
    )  # fmt: skip


def figures(
    net: Network,
    which: int | str | Iterable[int | str] | None = None,
    *,
    seeds: Seeds | None = None,
    row_seeds: Seeds | None = None,
    col_seeds: Seeds | None = None,
    seed: int | None = None,
    psi: float | None = None,
    psi_cutoff: int | None = None,
    label: int | None = None,
    precision: Precision = "float32",
    progress: Progress = silent,
) -> dict[str, Pictures]:
    """Draw the StyleGAN paper's figures; return them by name, each uint8 [H, W, C].

    ``which`` are numbers in the paper or names (3, "truncation"), None all that the network can
    show. Settings are the published ones unless given, psi too: the network's own truncation for
    uncurated figures, 1 for others. Raises UsageError for a figure that there is not, or that the
    network cannot show.
    """
    bundle = open_network(net)
    words = [] if which is None else [which] if isinstance(which, int | str) else list(which)
    chosen = find_figures([str(word) for word in words])
    if not words:
        chosen = [one for one in chosen if not describe_lack(one, bundle.config)]
    given: Mapping[str, Any] = {
        "seeds": _short(seeds), "row_seeds": _short(row_seeds), "col_seeds": _short(col_seeds),
        "seed": seed, "psi": psi, "psi_cutoff": psi_cutoff, "label": label,
    }  # fmt: skip
    drawing = Drawing(precision=precision)
    return {
        one.key: draw_figure(one, bundle.generator, figure_settings(one, bundle.config, given),
                             drawing, progress)
        for one in chosen
    }  # fmt: skip


Photo = Path | str | Pictures  # a photograph's file, or a picture as it is


def project(
    net: Network,
    photos: Photo | Sequence[Photo],
    *,
    space: str | None = None,
    tune: bool = False,
    preset: str = "fast",
    steps: int | None = None,
    tune_steps: int | None = None,
    noise: bool = True,
    distance: str | None = None,
    align: bool = True,
    detector: str = "auto",
    mask: Path | str | None = None,
    label: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress = silent,
) -> Projection | list[Projection]:
    """Find the styles and noise maps from which a network draws photographs.

    ``net`` is what load_network returns, or a path to a network or a run. ``photos`` is one, which
    gives one result, or several: files, aligned as ``stylecli project`` does unless ``align`` is
    off, or pictures uint8 [H, W, C] of the network's size, taken as they are. ``space`` is w (the
    default), w+ or z; ``tune`` tunes a copy of the network afterwards. Other settings are those of
    the command. A result has ws [num_ws, w_dim], noise (maps [1, 1, h, w]), picture, distance,
    psnr (dB), from_mean and, tuned, network. Raises UsageError for what does not fit, DataError for
    a photograph that cannot be used, WeightsError where LPIPS is asked for and has no weights.
    """
    bundle = open_network(net)
    if device is not None:
        bundle.generator.to(device)
    alone = isinstance(photos, Path | str | np.ndarray) or not isinstance(photos, Iterable)
    given: Iterable[object] = photos if isinstance(photos, Iterable) and not alone else [photos]
    chosen = [_checked_photo(photo) for photo in given]
    if mask is not None and any(isinstance(photo, np.ndarray) for photo in chosen):
        raise UsageError(f"mask {mask} is for files: pictures are taken as they are")
    how = Projecting(space, tune, preset, steps, tune_steps, seed, label, noise, distance)
    projector = Projector(bundle, how, batch=batch)
    config = bundle.config
    portraits = [
        check_picture(photo, config.size, config.channels)
        if isinstance(photo, np.ndarray)
        else read_portrait(
            Path(photo), config.size, config.channels, align=align, detector=detector,
            mask=None if mask is None else Path(mask),
        )
        for photo in chosen
    ]  # fmt: skip
    found: list[Projection] = []
    for start in range(0, len(portraits), projector.batch):
        part = portraits[start : start + projector.batch]
        found += projector.project(
            np.stack([one.picture for one in part]), [one.mask for one in part], progress=progress
        )
    return found[0] if alone else found


def sharpen(
    net: Network,
    small: Photo,
    *,
    candidates: int = CANDIDATES,
    starts: int = STARTS,
    bound: float = BOUND,
    steps: int = SHARPENING_STEPS,
    label: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress = silent,
) -> list[Candidate]:
    """Draw large faces that a small picture may show: plausible ones, not the person's.

    ``net`` is what load_network returns, or a path to a network or a run. ``small`` is a file, or a
    picture uint8 [h, w, 1 or C], of whose size the network's is a multiple. ``bound`` is the mean
    squared difference, colours 0 to 1, up to which a face counts as fitting once it is shrunk. Of
    ``starts`` searches for each candidate, those that differ most are returned, whether they fit or
    not, with ws, noise, picture, shrunk and error. Raises UsageError for what
    does not fit, DataError for a file that cannot be used.
    """
    bundle = open_network(net)
    if device is not None:
        bundle.generator.to(device)
    how = Sharpening(candidates, starts, steps, bound=bound, seed=seed, label=label)
    sharpener, config = Sharpener(bundle, how, batch=batch), bundle.config
    small = _checked_photo(small)
    if not isinstance(small, np.ndarray):
        small = read_small(Path(small), config.size, config.channels).picture
    return sharpener.sharpen(small, progress=progress)


def _checked_photo(photo: object) -> Photo:
    """Return a photograph as it is; raise UsageError for what is neither a file nor an array."""
    if isinstance(photo, Path | str | np.ndarray):
        return photo
    raise UsageError(
        f"a photograph is a file or an array, not {type(photo).__name__}: give its path, or "
        "numpy.asarray(picture)"
    )


def edit(
    ws: Tensor, edit: str | Mapping[str, float],
    directions: Path | str | Directions | None = None,
) -> Tensor:  # fmt: skip
    """Return styles ws [N, num_ws, w_dim] moved along directions: "smile:+2,pose@coarse:-1".

    ``edit`` may also be strengths by name; strength 1 is one standard deviation of the network's
    faces. ``directions`` is a file that ``stylecli directions find`` wrote, None the directions of
    the network that comes with stylecli. Raises UsageError for an unknown name, for ws of another
    shape, and for single style channels, which are not part of w (generate and others take them).
    """
    found = _read_directions(directions)
    space = found.space
    if ws.ndim not in (2, 3) or ws.shape[-2:] != (space.num_ws, space.w_dim):
        raise UsageError(
            f"ws have shape {list(ws.shape)}: these directions need [N, {space.num_ws}, "
            f"{space.w_dim}]"
        )
    edits = resolve(parse_edits(format_edits(edit)), found)
    if edits.shifts:
        raise UsageError(
            f"{format_edits(edit)} moves single styles, which are not part of w: give it to "
            f"stylecli.generate as edit="
        )
    return edits.move(ws)


def _edits(
    net: Network, config: NetworkConfig, edit: Edit, directions: Path | str | Directions | None
) -> Edits | None:
    """Return what is added to styles; raise NetworkError for directions of another network."""
    if edit is None:
        if directions is not None:
            raise UsageError("directions are given, but no edit: add such as edit='smile:+2'")
        return None
    found = _read_directions(directions)
    digest = found.space.sha256  # of networks in memory no file is known
    if not isinstance(net, Bundle):
        digest = network_digest(find_network(Path(net)).path)
    found.check_network(config, digest)
    return resolve(parse_edits(format_edits(edit)), found)


def _read_directions(directions: Path | str | Directions | None) -> Directions:
    if isinstance(directions, Directions):
        return directions
    path = shipped.shipped_directions() if directions is None else Path(directions)
    if path is None:
        raise UsageError("no directions are given: give a file of stylecli directions find")
    return read_directions(path)


def _drawing(net: Network, bundle: Bundle, how: Mapping[str, Any]) -> Drawing:
    """Return how to draw, checked; the generator goes to the device that it names."""
    given = dict(how)
    center = _centre(bundle, given.pop("center", None))
    edits = _edits(net, bundle.config, given.pop("edit", None), given.pop("directions", None))
    drawing = Drawing(**given, centre=center, edits=edits)
    check_drawing(bundle.config, drawing)
    if drawing.device is not None:
        bundle.generator.to(drawing.device)
    return replace(drawing, device=None)


def _centre(net: Bundle, center: Center) -> Tensor | None:
    """Return what to truncate towards: a tensor as it is, else as find_centre reads it."""
    if center is None or isinstance(center, Tensor):
        return center
    return find_centre(net, str(center))


def _sources(
    net: Bundle,
    asked: Seeds | Face | Sequence[Face],
    first: int,
    drawing: Drawing,
    own_noise: bool,
    rows: Sequence[object] | None = None,
) -> Faces:
    """Return the faces of one side of a mix; a number alone counts seeds from ``first`` on."""
    if _is_count(asked):
        count = int(asked)  # type: ignore[arg-type]
        count = len(rows) if rows is not None and count == USUAL else count
        if not 1 <= count <= 100:
            raise UsageError(f"{count} is a count from 1 to 100: for one seed give [{count}]")
        return list(range(first, first + count))
    if isinstance(asked, str) and not holds_styles(asked) and not Path(asked).is_file():
        return list_seeds(asked)
    alone = isinstance(asked, str | Path | Projection)
    faces = [asked] if alone else list(asked)  # type: ignore[arg-type]
    if all(isinstance(face, int | np.integer) for face in faces):
        return list_seeds(faces)  # type: ignore[arg-type]
    found = join_sources([_open_face(net, face, drawing) for face in faces])  # type: ignore[arg-type]
    return found if own_noise else replace(found, noise=())


def _open_face(net: Bundle, face: Face, drawing: Drawing) -> Sources:
    if isinstance(face, Projection):
        if face.ws.shape != (net.config.num_ws, net.config.w_out_dim):
            raise UsageError(
                f"a projection of {list(face.ws.shape)} is given: this network takes "
                f"[{net.config.num_ws}, {net.config.w_out_dim}]"
            )
        return Sources(face.ws[None], ("photo",), (face.noise or None,))
    if not isinstance(face, str | Path):
        return name_faces(net.generator, list_seeds(face), drawing)
    if str(face).strip().isdecimal():
        return name_faces(net.generator, list_seeds(str(face)), drawing)
    if not holds_styles(face):
        raise UsageError(
            f"{face} is no file of styles: give a .npz, or what stylecli.project found in a "
            f"photograph"
        )
    return open_sources(net, Path(face))


def _is_count(asked: object) -> bool:
    return isinstance(asked, int) or (isinstance(asked, str) and asked.strip().isdecimal())


def _short(seeds: Seeds | None) -> str | None:
    return None if seeds is None else format_seeds(list_seeds(seeds))
