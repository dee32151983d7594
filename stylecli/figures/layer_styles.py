"""Every layer's style swapped alone: what each one carries."""

from collections.abc import Sequence

from stylecli.errors import UsageError
from stylecli.figures.margins import add_margins
from stylecli.images import Pictures, make_grid, shrink, visible_scale
from stylecli.networks.stylegan1 import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import Precision, render
from stylecli.sampling import Psi, map_seeds, mix_ws

LARGEST_CELL = 256  # pixels: 18 layers of 1024 px would make a sheet nobody can open


def draw_layer_styles(
    G: Generator,
    seeds: Sequence[int],
    sources: Sequence[int],
    *,
    psi: Psi = 1.0,
    psi_cutoff: int | None = None,
    label: int | None = None,
    scale: int | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
    progress: Progress = silent,
) -> Pictures:
    """Draw a row per pair of seeds: the face, its source, and the face with one style replaced.

    Column ``0`` takes the style of layer 0 from the source and keeps all others, and so on; two
    layers to a resolution from 4 px. Every picture has the same noise. Pictures over 256 px are
    shrunk to it. Returns [H, W, C]. Raises UsageError for networks without styles, or when there
    are not as many sources as seeds.
    """
    config = G.config
    if not config.has_w:
        raise UsageError(
            f"configuration {config.preset!r} has no styles to swap: train configuration c or later"
        )
    if len(seeds) != len(sources):
        raise UsageError(
            f"{len(seeds)} seeds need as many sources, not {len(sources)}: each row swaps with one"
        )
    own = map_seeds(G, seeds, label=label, psi=psi, psi_cutoff=psi_cutoff)
    others = map_seeds(G, sources, label=label, psi=psi, psi_cutoff=psi_cutoff)
    layers = range(config.num_ws)
    ws = [
        row
        for face, source in zip(own, others, strict=True)
        for row in (
            face,
            source,
            *(mix_ws(face[None], source[None], [layer])[0] for layer in layers),
        )
    ]
    side = min(config.resolution, LARGEST_CELL)
    cells: list[Pictures] = []
    for picture in render(G, ws, batch=batch, precision=precision):
        cells.append(shrink(picture, side, side))
        progress(len(cells), len(ws))
    scale = scale or visible_scale(side)
    gap = max(1, side * scale // 64)
    sheet = make_grid(cells, len(layers) + 2, padding=gap, scale=scale)
    side *= scale
    names = [f"{layer} ({2 ** (layer // 2 + 2)} px)" for layer in layers]
    return add_margins(
        sheet, (side + gap, side + gap), (side, side), top=("face", "source", *names),
        left=[f"{seed}, {source}" for seed, source in zip(seeds, sources, strict=True)],
    )  # fmt: skip
