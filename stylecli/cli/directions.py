"""``stylecli directions``: find directions of a network, list them, show them, apply them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import (
    USUAL_DRAWING,
    DrawingOptions,
    OpenedNetwork,
    check_directions,
    check_edit,
    open_source,
    takes_drawing,
)
from stylecli.cli.faces import check_faces, find_faces, shown_words
from stylecli.cli.options import (
    AttributesOption,
    ClassifiersOption,
    ClassifierSource,
    DeviceOption,
    ForceOption,
    JsonOption,
    NetworkOption,
    OutOption,
    QuietOption,
    SeedOption,
    TrainClassifiersOption,
)
from stylecli.cli.output import Output
from stylecli.cli.parameters import PlainCommand, holds_commands
from stylecli.cli.refusals import check_files, check_words, find_and_check, find_data
from stylecli.cli.targets import is_done, resolve_target, resolve_video
from stylecli.errors import Interrupted, UsageError
from stylecli.latents import Search
from stylecli.provenance import shown_path
from stylecli.seeds import format_seeds, parse_seeds
from stylecli.workspace import RUN_FILE, folder_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stylecli.images import Pictures
    from stylecli.latents.directions import Direction, Directions
    from stylecli.metrics.classifiers import AttributeClassifiers
    from stylecli.rendering import Drawing
    from stylecli.sheets.mixing import Sources

app = holds_commands(
    """Directions of a network: along one of them, one thing in every face changes.

    Example: stylecli directions list

    They have names, which --edit of generate, mix and interpolate takes: --edit smile:+2.
    """
)

FILE_HELP = "Their file. Default: out/NETWORK/directions.safetensors, or those shipped."
DirectionsOption = Annotated[Path | None, typer.Option("--directions", help=FILE_HELP)]
_FACES = "0-4"  # rows of a strip where nothing is named
_SECONDS = 4.0  # of a video, there and back
_LEAKS = 3  # that a list names


@app.command("find", cls=PlainCommand)
def find(
    network: NetworkOption = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="sefa: from the weights; ganspace: components of w, or of --activations; labels: "
            "what classifiers see; channels: single styles that change it.",
            metavar="METHOD",
        ),
    ] = "sefa",
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Layers that edits move: a band such as coarse, or 4-7. Default: all; sefa also "
            "looks at every band by itself.",
        ),
    ] = None,
    activations: Annotated[
        int | None,
        typer.Option(
            "--activations", min=0, help="ganspace: components of this layer's activations."
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            min=1,
            help="How many: sefa 10 for each band, ganspace 20, channels 5 for each label.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            min=1,
            help="Faces to look at. Default: ganspace 300,000 (activations 10,000), others 10,000.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            help="What to find, by values of an attribute, such as smile=mouth:laugh/angry,sad; "
            "may be repeated. Default: every value of every attribute.",
            metavar="NAME=ATTRIBUTE:VALUES",
        ),
    ] = None,
    fit: Annotated[
        str, typer.Option("--fit", help="labels: svm, or mean, the difference of the means.")
    ] = "svm",
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            help="labels: what else is not to change: other labels of this command or directions "
            "found before, with commas.",
            metavar="NAME,...",
        ),
    ] = None,
    effects: Annotated[
        bool,
        typer.Option(
            "--effects/--no-effects",
            help="labels, channels: measure what else each direction changes.",
        ),
    ] = True,
    classifiers: ClassifiersOption = None,
    train_classifiers: TrainClassifiersOption = False,
    attributes: AttributesOption = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Dataset. Default: the run's, else the only one in datasets/."),
    ] = None,
    directions: Annotated[
        Path | None,
        typer.Option(
            "--directions",
            help="File to write to. Default: out/NETWORK/directions.safetensors.",
        ),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find directions of a network, and keep them in its file.

    Example: stylecli directions find --method sefa

    What is in the file stays. Labels and channels need attribute classifiers, as stylecli metrics
    ls does: --train-classifiers makes them from a dataset that has attributes.
    """
    output = Output(json=json, quiet=quiet)
    wanted = tuple(word.strip() for word in (keep or "").split(",") if word.strip())
    search = Search(
        method, layers, activations, count, samples, tuple(label or ()), fit, wanted, effects, seed
    )
    judges = ClassifierSource(classifiers, train_classifiers, attributes)
    _check_search(search, judges, device)
    path = find_and_check(network, output).path
    dataset = None
    if search.labelled:
        run = path.parent if (path.parent / RUN_FILE).is_file() else None
        dataset = find_data(["ls"], data, run, needed=train_classifiers)
    source = open_source(path, device, output)
    data_path = None if dataset is None else dataset.path
    every, new = add_found(source, search, judges, data_path, directions, force, output)
    names = [one.name for one in new]
    document = {
        "file": str(every.path), "network": str(source.path), "found": names, "method": method,
        "directions": every.describe(),
    }  # fmt: skip
    rows = [row for row in every.describe() if row["name"] in names]
    output.result(document, [str(every.path), *(_table(rows, output) if rows else [])])


def _check_search(search: Search, judges: ClassifierSource, device: str) -> None:
    """Refuse what is wrong before torch loads."""
    search.check()
    check_words(device=device)
    if not search.labelled and (judges.given or judges.train or judges.attributes):
        raise UsageError(
            f"classifiers have no meaning with --method {search.method}: leave them out"
        )
    judges.check(["ls"])
    check_files(classifiers=judges.given, attributes=judges.attributes)


def add_found(
    source: OpenedNetwork, search: Search, judges: ClassifierSource, data: Path | None,
    given: Path | None, force: bool, output: Output,
) -> "tuple[Directions, list[Direction]]":  # fmt: skip
    """Add what is found to the file; return all that it holds then, and what of it is new."""
    from stylecli.latents.directions import FILE, directions_before, write_directions

    path = given or source.folder / FILE
    known = directions_before(
        source.folder, source.digest, source.config, given, network=shown_path(source.path),
        replacing=force,
    )  # fmt: skip
    new = _find_new(source, search, known, judges, data, output, force)
    every = replace(known.adding(new), path=path)
    if new or not path.exists():
        write_directions(path, every)
    return every, new


def _find_new(
    source: OpenedNetwork, search: Search, known: "Directions", judges: ClassifierSource,
    data: Path | None, output: Output, force: bool,
) -> "list[Direction]":  # fmt: skip
    """Return what was found; empty where all of it is in the file already."""
    from stylecli.latents.judging import Judging
    from stylecli.latents.searching import check_new, found_before, run_search

    judging = None
    if search.labelled:
        classifiers = _classifiers(source, judges, data, output)
        judging = Judging(classifiers.classify, classifiers.values, classifiers.digest)
    if names := found_before(search, known, judging):
        output.note(f"found before: {', '.join(names[:8])}{'...' * (len(names) > 8)}")
        return []
    try:
        with output.progress(search.method) as progress:
            new = run_search(
                search, source.bundle.generator, known, judging, tell=output.warn, progress=progress
            )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted: what the file held stays; run the same command to start over"
        ) from None
    if not force:
        check_new(new, known)
    return new


def _classifiers(
    source: OpenedNetwork, judges: ClassifierSource, data: Path | None, output: Output
) -> "AttributeClassifiers":
    import torch

    from stylecli.data.reader import open_dataset

    dataset = None if data is None else open_dataset(data)
    device = torch.device(source.device)
    side = min(source.config.height, source.config.width)
    found = judges.obtain(["ls"], dataset, side, device, output)
    if found is None:
        raise UsageError(
            "labels need attribute classifiers: add --train-classifiers, with --data DATASET that "
            "knows its pictures' attributes, or --classifiers FILE"
        )
    found = found.recognising()
    if not found.classifiers:
        raise UsageError(
            "no classifier recognises its attribute better than by chance: train them on more or "
            "larger pictures"
        )
    if left_out := found.info.get("left_out"):
        output.note(f"not recognised, and left out: {', '.join(left_out)}")
    return found.to(device)


@app.command("list", cls=PlainCommand)
def list_directions(
    network: NetworkOption = None,
    directions: DirectionsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the directions of a network, and what else each changes.

    Example: stylecli directions list

    Layers are those that an edit moves, unless it names others (smile@4-7:+2). "1 is" says how far
    strength 1 goes: one standard deviation of the network's faces, in w or in a style. "Changes"
    is the share of the faces whose attribute changes with strength 1, as classifiers see it.
    """
    output = Output(json=json, quiet=quiet)
    found = _find(network, directions, output)
    rows = found.describe()
    document = {
        "file": str(found.path), "network": found.space.network, "sha256": found.space.sha256,
        "directions": rows,
    }  # fmt: skip
    output.result(document, _table(rows, output))


def _find(network: Path | None, directions: Path | None, output: Output) -> "Directions":
    """Return the directions of a network that is not loaded: its header and hash are enough."""
    check_directions(directions)
    from stylecli.latents.directions import find_directions
    from stylecli.networks.headers import check_header
    from stylecli.weights import remember_digest

    path = find_and_check(network, output).path
    config = check_header(path)
    if config is None:  # another program's: its sizes are known once it is read
        from stylecli.checkpoint import load_network

        config = load_network(path, drawing=True).config
    found = find_directions(folder_of(path), remember_digest(path), config, directions)
    assert found.path is not None
    output.note(f"directions: {shown_path(found.path)}")
    return found


def _table(rows: Sequence[Mapping[str, Any]], output: Output) -> list[str]:
    """Lay directions out; what they change comes last, the most first."""
    header = ["name", "method", "layers", "1 is", "right", "changes"]
    lines = []
    for row in rows:
        accuracy = row.get("accuracy")
        shown = f"{100 * accuracy:.0f} %" if isinstance(accuracy, int | float) else "-"
        band = row["band"]
        lines.append(
            [row["name"], row["method"], band, f"{row['scale']:.3g}", shown, _changes(row)]
        )
    if not any(line[4] != "-" for line in lines):
        header, lines = header[:4] + header[5:], [line[:4] + line[5:] for line in lines]
    if not any(line[-1] != "-" for line in lines):
        header, lines = header[:-1], [line[:-1] for line in lines]
    return output.table(header, lines)


def _changes(row: Mapping[str, Any]) -> str:
    """Return the attributes that change: the aim, then what else changes most."""
    changes = row.get("changes")
    if not isinstance(changes, Mapping):
        return "-"
    numbers = {
        str(name): float(share) for name, share in changes.items() if isinstance(share, int | float)
    }
    aim = row.get("attribute")
    first = [aim] if aim in numbers else []
    others = sorted((name for name in numbers if name != aim), key=lambda name: -numbers[name])
    return ", ".join(
        f"{name} {100 * numbers[name]:.0f} %" for name in [*first, *others[:_LEAKS]]
    ) or "-"  # fmt: skip


_DRAWN = ("network", "psi", "psi_cutoff", "psi_layers", "center", "label", "noise_mode",
          "noise_seed", "lod", "scale", "batch", "device", "precision", "json", "force",
          "quiet")  # fmt: skip


@app.command("show", cls=PlainCommand)
@takes_drawing(only=_DRAWN)
def show(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="One direction: a row for each face. Several: a row for each."
        ),
    ],
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Faces, such as 0-4 (the default).")
    ] = None,
    face: Annotated[
        list[str] | None,
        typer.Option(
            "--face",
            help="A face: a seed, a file of styles or a photograph; may be repeated.",
            metavar="FACE",
        ),
    ] = None,
    strengths: Annotated[
        str | None,
        typer.Option("--strengths", help="Columns. Default -3,-2,-1,0,1,2,3.", metavar="S,..."),
    ] = None,
    directions: DirectionsOption = None,
    how: DrawingOptions = USUAL_DRAWING,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="Length of a video, there and back. Default 4."),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frames per second. Default 30, GIF 25.")
    ] = None,
    out: OutOption = None,
) -> None:
    """Draw faces that move along directions: a sheet, or a video with --out NAME.mp4.

    Example: stylecli directions show smile --seeds 0-4

    A name may have layers, as in --edit: smile@4-7.
    """
    from stylecli.sheets.strips import draw_strips, parse_strengths

    output = how.output()
    moves = parse_strengths(strengths)
    if seeds and face:
        raise UsageError(f"--seeds {seeds} and --face {face[0]} exclude each other")
    video = out is not None and out.suffix.lower() in (".mp4", ".webm", ".gif")
    for option, value in (("--seconds", seconds), ("--fps", fps)):
        if value is not None and not video:
            raise UsageError(f"{option} {value:g} is for a video: add --out NAME.mp4")
    if video and len(names) > 1:
        raise UsageError(f"a video shows one direction, not {len(names)}: give one name")
    check_edit(",".join(f"{name}:0" for name in names), directions)
    check_faces("--face", face or ())
    if not video:
        resolve_target(out, Path(), None, None, True, 1)
    how.check()
    opened = how.open(output)
    source, drawing = opened.source, opened.drawing
    found = source.find_directions(directions)
    faces, files, settings = _faces(source, seeds, face, drawing)
    settings |= {
        "strengths": ",".join(f"{move:g}" for move in moves), **opened.settings,
        "directions": shown_path(found.path) if found.path else None,
    }  # fmt: skip
    inputs = opened.inputs | files | ({"directions": found.path} if found.path else {})
    noise = _noise(source, faces, how, settings)
    G = source.bundle.generator
    stem = "-".join(names[:3]).replace("@", "-").replace(",", "_")
    if video:
        path = _write_sweep(
            source, found, names[0], faces, moves, drawing, noise, settings, inputs,
            (out, stem, seconds, fps), how.force, output,
        )  # fmt: skip
    else:
        target = resolve_target(out, source.folder, None, None, True, 1)
        path = target.path(f"directions-{stem}")
        record = source.provenance(
            "directions", {**settings, **target.settings}, arguments=["show", *names], inputs=inputs
        )
        if is_done(path, record, how.force):
            output.note(f"{path} already exists")
        else:
            with output.progress("show", "pictures") as progress:
                sheet = draw_strips(
                    G, found, names, faces.ws, moves, drawing, faces=faces.names, noise=noise,
                    progress=progress,
                )  # fmt: skip
            target.save(path, sheet, record)
    document = {"network": str(source.path), "directions": names, **settings, "path": str(path)}
    output.result(document, [str(path)])


def _faces(
    source: OpenedNetwork, seeds: str | None, face: Sequence[str] | None, drawing: "Drawing"
) -> "tuple[Sources, dict[str, Path], dict[str, Any]]":
    """Return faces, the files they come from, and the option that names them."""
    if face:
        found, files = find_faces(source, "face", face, drawing)
        return found, files, {"face": shown_words(face)}
    from stylecli.sampling import map_seeds
    from stylecli.sheets.mixing import Sources

    numbers = parse_seeds(seeds or _FACES)
    ws = map_seeds(
        source.bundle.generator, numbers, label=drawing.label, **drawing.truncation
    )  # fmt: skip
    return Sources(ws, tuple(map(str, numbers))), {}, {"seeds": format_seeds(numbers)}


def _noise(
    source: OpenedNetwork, faces: "Sources", how: DrawingOptions, settings: dict[str, Any]
) -> Any:
    """Return the noise maps of projected photographs, unless other noise is asked for."""
    from stylecli.sheets.mixing import own_noise

    if how.noise_mode is not None or how.noise_seed is not None:
        return None
    noise = own_noise(source.bundle.generator, faces)
    if noise is not None:
        settings["noise_mode"] = None  # said, it would mean the network's noise
    return noise


def _write_sweep(
    source: OpenedNetwork, found: "Directions", name: str, faces: "Sources",
    moves: Sequence[float], drawing: "Drawing", noise: Any, settings: dict[str, Any],
    inputs: dict[str, Path], clip: tuple[Path | None, str, float | None, float | None],
    force: bool, output: Output,
) -> Path:  # fmt: skip
    """Write the video of a direction: from the least strength to the largest and back."""
    from stylecli.sheets.strips import draw_sweep, sweep, sweep_size

    out, stem, seconds, fps = clip
    target = resolve_video(out, source.folder, f"directions-{stem}", fps=fps)
    frames, _ = target.count_frames(2, seconds or _SECONDS, None, loop=True)
    path_of = sweep(moves, frames)
    record = source.provenance(
        "directions", {**settings, "seconds": seconds or _SECONDS, "fps": target.fps},
        arguments=["show", name], inputs=inputs,
    )  # fmt: skip

    def draw(start: int) -> "Iterator[Pictures]":
        return draw_sweep(
            source.bundle.generator, found, name, faces.ws, path_of[start:], drawing, noise=noise
        )

    return target.write(
        draw, frames, loop=True, provenance=record, force=force, output=output, title="show",
        size=sweep_size(source.config, len(faces), drawing),
    )  # fmt: skip


@app.command("apply", cls=PlainCommand)
@takes_drawing(only=_DRAWN)
def apply(
    edit: Annotated[
        str, typer.Argument(metavar="EDIT", help="Such as smile:+2,hair@4-7:-1; see list.")
    ],
    faces: Annotated[
        list[str],
        typer.Argument(
            metavar="FACE...", help="Photographs, files of styles (.npz, .npy, .pt) or seeds."
        ),
    ],
    directions: DirectionsOption = None,
    how: DrawingOptions = USUAL_DRAWING,
    out: OutOption = None,
) -> None:
    """Move faces along directions: writes the pictures, and their styles as .npz.

    Example: stylecli directions apply smile:+2 photo.jpg

    A photograph is projected first, once, as stylecli project does it. NAME-edited.npz is for
    generate --ws, mix and interpolate.
    """
    output = how.output()
    check_edit(edit, directions)
    check_faces("FACE", faces)
    resolve_target(out, Path(), None, None, False, len(faces))
    how = replace(how, edit=edit, directions=directions)
    how.check()
    opened = how.open(output)
    source, drawing = opened.source, opened.drawing
    found, files = find_faces(source, "face", faces, drawing)
    settings = {key: value for key, value in opened.settings.items() if key != "edit"}
    noise = _noise(source, found, how, settings)
    target = resolve_target(out, source.folder / "edited", None, None, False, len(found))
    record = source.provenance(
        "directions", {**settings, **target.settings},
        arguments=["apply", opened.settings["edit"], *shown_words(faces)],
        inputs=opened.inputs | files,
    )  # fmt: skip
    paths = _write_edited(source, found, drawing, noise, target, record, how.force, output)
    document = {
        "network": str(source.path), "edit": opened.settings["edit"], **settings, "paths": paths
    }  # fmt: skip
    output.result(document, paths)


def _write_edited(
    source: OpenedNetwork, faces: "Sources", drawing: "Drawing", noise: Any, target: Any,
    record: dict[str, Any], force: bool, output: Output,
) -> list[str]:  # fmt: skip
    """Write the picture of every face, and its styles where they say all; return the paths."""
    from stylecli.images import enlarge
    from stylecli.rendering import Edits, render
    from stylecli.saved_ws import read_ws_provenance, save_ws

    edits = drawing.edits or Edits()
    saved = not edits.shifts
    if not saved:
        output.note("single styles are not part of w: no .npz is written")
    paths = []
    maps = None if noise is None else iter(noise)
    pictures = render(source.bundle.generator, faces.ws, drawing, noise=maps)
    with output.progress("apply", "faces") as progress:
        for place, (name, picture) in enumerate(zip(faces.names, pictures, strict=True)):
            path = target.path(f"{name}-edited")
            styles = path.with_suffix(".npz")
            if not is_done(path, record, force):
                target.save(path, enlarge(picture, drawing.scale or 1), record)
            paths.append(str(path))
            if saved:
                if not is_done(styles, record, force, read_ws_provenance):
                    own = () if noise is None else noise[place]
                    save_ws(styles, edits.move(faces.ws[place])[None], noise=own, provenance=record)
                paths.append(str(styles))
            progress(place + 1, len(faces))
    return paths
