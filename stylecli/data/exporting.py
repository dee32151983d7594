"""Hand a dataset to other tools: the zip that NVIDIA's StyleGAN programs train on.

A stored ZIP of uncompressed PNGs, ``00000/img00000000.png`` and on, with ``dataset.json`` for the
labels. What our datasets know beyond that goes into entries which those programs pass over:
names of the classes as one more key of ``dataset.json``, and the pictures' origins, authors and
licences, which have to travel with them, as ``metadata.jsonl``.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylecli.data.format import to_picture
from stylecli.data.reader import Dataset
from stylecli.data.sources.folders import LABELS_NAME, METADATA_NAME
from stylecli.errors import DataError
from stylecli.files import parse_json, replacing, to_json
from stylecli.progress import Progress, silent

_ENTRY_BYTES = 400  # of a picture beside its pixels: the headers of PNG and zip
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same dataset gives the same bytes on any day


@dataclass(frozen=True)
class ExportReport:
    """What ``export_nvidia`` wrote."""

    path: Path
    count: int
    resolution: int
    channels: int
    label_dim: int  # classes, or length of the label vectors; 0 when unlabelled
    bytes: int


def export_nvidia(
    dataset: Dataset,
    out: Path | str,
    *,
    made_from: dict[str, Any] | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Write ``dataset`` as the zip that StyleGAN2-ADA, StyleGAN3 and their descendants read.

    Pixels and labels are kept exactly: classes as integers, vectors as lists of floats. Raises
    DataError when ``out`` exists (unless ``force``) or the pictures have transparency, for which
    the format has no room. An interrupted export leaves nothing behind. ``made_from`` is what
    ``find_export`` knows the work by later.
    """
    out = Path(out)
    if out.is_dir() or (out.exists() and not force):
        hint = "" if out.is_dir() else ", or --force to replace it"
        raise DataError(f"{out} exists: give another --out{hint}")
    if dataset.channels not in (1, 3):
        raise DataError(
            f"{dataset.path} has {dataset.channels} channels, and NVIDIA's format holds 1 or 3: "
            "pack the pictures with --channels 3 first"
        )
    if not dataset.grid.is_usual:
        raise DataError(
            f"{dataset.path} has pictures of {dataset.size} px, and the tools that read NVIDIA's "
            "format take square ones: pack the pictures without --shape first"
        )
    facts: dict[str, Any] = {
        "count": len(dataset),
        "resolution": dataset.resolution,
        "channels": dataset.channels,
        "label_dim": dataset.label_dim,
    }
    needed = len(dataset) * (dataset.channels * dataset.size.pixels + _ENTRY_BYTES)
    with replacing(out, needed) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for index in range(len(dataset)):
            buffer = io.BytesIO()
            to_picture(dataset.read([index])[0]).save(buffer, "png", compress_level=0)
            _add(archive, picture_name(index), buffer.getvalue())
            progress(index + 1, len(dataset))
        _add(archive, LABELS_NAME, to_json(_labels(dataset)))
        if lines := [to_json(line) for line in _metadata(dataset)]:
            _add(archive, METADATA_NAME, b"\n".join(lines) + b"\n")
        if made_from is not None:
            archive.comment = to_json({"made_from": made_from, **facts})
    return ExportReport(**facts, path=out, bytes=out.stat().st_size)


def find_export(out: Path, made_from: dict[str, Any]) -> ExportReport | None:
    """Return the report of the export at ``out`` if the same work made it, else None."""
    try:
        with zipfile.ZipFile(out) as archive:
            noted = parse_json(archive.comment, out)
        if noted.pop("made_from") != parse_json(to_json(made_from), out):
            return None
        return ExportReport(**noted, path=out, bytes=out.stat().st_size)
    except (DataError, OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return None


def picture_name(index: int) -> str:
    """Return where picture ``index`` lies: the first five of eight digits name its folder."""
    digits = f"{index:08d}"
    return f"{digits[:5]}/img{digits}.png"


def _labels(dataset: Dataset) -> dict[str, Any]:
    if dataset.labels is None:
        return {"labels": None}
    values = dataset.labels.tolist()
    content: dict[str, Any] = {
        "labels": [[picture_name(index), value] for index, value in enumerate(values)]
    }
    if dataset.class_names:
        content["class_names"] = dataset.class_names
    return content


def _metadata(dataset: Dataset) -> list[dict[str, Any]]:
    known = ((index, dataset.metadata(index)) for index in range(len(dataset)))
    return [{"name": picture_name(index), **metadata} for index, metadata in known if metadata]


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16  # unpacked files are ordinary ones
    archive.writestr(info, content)
