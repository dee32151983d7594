"""CelebA as published: ``img_align_celeba`` with its lists of attributes and identities.

The lists lie beside the pictures' folder, or in ``Anno`` beside it. Attributes become vectors of 40
values, 0 or 1. The pictures are 178 x 218 px; papers cut rows 57-185 and columns 25-153 out.
"""

from pathlib import Path
from typing import Any

from stylecli.data.sources.annotation import AnnotatedSource
from stylecli.data.sources.folder import ImageFolder
from stylecli.data.sources.label_files import read_labels
from stylecli.data.sources.labels import align_labels
from stylecli.errors import DataError

FOLDER_NAME = "img_align_celeba"
_ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_IDENTITIES = ("identity_CelebA.txt",)
_CROP_NOTE = (
    "these are CelebA's aligned pictures, 178 x 218 px: --transform celeba cuts the 128 px square "
    "that papers use"
)


def find_celeba(path: Path) -> Path | None:
    """Return the folder of aligned pictures that a path is or holds, as CelebA's, or None."""
    for folder in (path, path / FOLDER_NAME, path / "Img" / FOLDER_NAME):
        if folder.name == FOLDER_NAME and folder.is_dir():
            return folder
    return None


def open_celeba(path: Path, folder: Path) -> AnnotatedSource:
    """Open CelebA's pictures in ``folder`` with the lists that lie at ``path`` or beside it.

    Raises DataError when a list leaves a picture out.
    """
    pictures = ImageFolder(folder, classes=False)
    names = [pictures[index].name for index in range(len(pictures))]
    places = [
        path,
        path / "Anno",
        folder.parent,
        folder.parent / "Anno",
        folder.parent.parent / "Anno",
    ]
    notes = [_CROP_NOTE] if _is_aligned_size(pictures) else []
    metadata: dict[int, dict[str, Any]] = {}
    if identities := _find(places, _IDENTITIES):
        numbers = align_labels(read_labels(identities, names), names, identities)
        metadata = {place: {"identity": number} for place, number in enumerate(numbers.tolist())}
    if attributes := _find(places, _ATTRIBUTES):
        table = read_labels(attributes, names)
        values = align_labels(table, names, attributes)
        return AnnotatedSource(
            pictures, values, table.class_names, notes=[*notes, *table.notes], metadata=metadata
        )
    return AnnotatedSource(pictures, None, notes=notes, metadata=metadata)


def _find(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    candidates = (folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _is_aligned_size(pictures: ImageFolder) -> bool:
    try:
        with pictures[0].open() as picture:
            return picture.size == (178, 218)
    except DataError:
        return False  # it is skipped with its cause when its turn comes
