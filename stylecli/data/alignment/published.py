"""Recognise FFHQ's own folders of aligned pictures as a source for ``stylecli pack``."""

from pathlib import Path

from stylecli.data.alignment.aligned_folder import AlignedPictures
from stylecli.data.alignment.ffhq import Pictures, ffhq_pictures, find_ffhq
from stylecli.errors import DataError

_ALIGNED: tuple[Pictures, ...] = ("images1024x1024", "thumbnails128x128")


def open_published(path: Path) -> AlignedPictures | None:
    """Return the aligned pictures of an FFHQ folder with their metadata; None where it is none.

    ``path`` holds ``ffhq-dataset-v2.json`` and a folder of aligned pictures (the larger is taken),
    or is such a folder beside it. Files are compared by size. Raises DataError when only the
    in-the-wild photographs are there, and when no picture is usable.
    """
    path = path.resolve()
    layout = find_ffhq(path)
    if layout is None or layout.root not in (path, path.parent):
        return None
    there = [name for name in _ALIGNED if name in layout.folders]
    if layout.root == path.parent:
        there = [name for name in there if name == path.name]
    elif not there:
        raise DataError(
            f"{path} holds FFHQ's photographs, which are not aligned: run stylecli prepare-ffhq"
        )
    if not there:
        return None
    source, report = ffhq_pictures(layout, there[0])
    left_out = {"missing": len(report.missing), "not of the published size": len(report.failed)}
    for cause, count in left_out.items():
        if count:
            source.remarks.append(f"{count:,} of FFHQ's {report.records:,} pictures are {cause}")
    return source
