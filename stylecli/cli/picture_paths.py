"""Where pictures go and in which format: what --out, --format and --quality come to."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from stylecli.errors import UsageError

if TYPE_CHECKING:
    from stylecli.images import Pictures

FORMATS = ("png", "jpeg", "webp")  # images.PICTURE_FORMATS, which --help must not load
_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_OTHER_SUFFIXES = (".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".svg", ".pdf")

FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="png, jpeg or webp. Default: what --out ends in, else png."),
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        "--quality", min=1, max=100, help="Of JPEG and WebP; WebP at 100 is exact. Default 95."
    ),
]


@dataclass(frozen=True)
class Target:
    """A folder or one file, and a format."""

    folder: Path
    file: Path | None  # the one name that --out gave
    format: Literal["png", "jpeg", "webp"]
    quality: int | None

    @property
    def settings(self) -> dict[str, Any]:
        """The options that give this format again; none for PNG."""
        if self.format == "png":
            return {}
        return {"format": self.format, "quality": self.quality}

    def path(self, stem: str) -> Path:
        """Return the path of a picture named ``stem``."""
        if self.file is not None:
            return self.file
        return self.folder / f"{stem}.{'jpg' if self.format == 'jpeg' else self.format}"

    def save(self, path: Path, picture: "Pictures", provenance: dict[str, Any]) -> None:
        """Write one picture [H, W, C] with how it was made, atomically."""
        from stylecli.images import save_picture

        save_picture(path, picture, provenance, quality=self.quality)


def resolve_target(
    out: Path | None, folder: Path, format: str | None, quality: int | None, sheet: bool, count: int
) -> Target:
    """Return where ``count`` pictures go, or one sheet of them, by default into ``folder``.

    An --out that ends like a picture is one file. Raises UsageError when that is too few, or when
    formats contradict each other.
    """
    named = None if out is None else _SUFFIXES.get(out.suffix.lower())
    chosen = format or named or "png"
    if chosen == "jpg":
        chosen = "jpeg"
    if chosen not in FORMATS:
        raise UsageError(f"--format {format} is unknown: expected {', '.join(FORMATS)}")
    if named is not None and chosen != named:
        raise UsageError(f"--format {format} contradicts --out {out}: leave one of them out")
    if quality is not None and chosen == "png":
        raise UsageError(f"--quality {quality} is for JPEG and WebP: add --format jpeg")
    if named is not None and not sheet and count > 1:
        raise UsageError(
            f"--out {out} is one file for {count} pictures: add --grid, or give a folder"
        )
    if out is not None and named is None:
        _check_folder(out)
    file = out if named is not None else None
    kind = cast(Literal["png", "jpeg", "webp"], chosen)
    return Target(out or folder, file, kind, quality)


def _check_folder(out: Path) -> None:
    """Raise UsageError for a name that is meant as, or is, a file that cannot be written."""
    names = ", ".join(_SUFFIXES)
    if out.suffix.lower() in _OTHER_SUFFIXES:
        raise UsageError(f"--out {out} is of a kind that is not written: end it in {names}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder, or a name that ends in {names}")
