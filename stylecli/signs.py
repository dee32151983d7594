"""Signs that a picture was generated: what it says of itself, its spectrum, both sides of its face.

None of them is a proof, alone or together: photographs that were resized, compressed or retouched
show some of them, and good networks show few. What each is worth on the demo's faces is measured by
tests/benchmarks/signs.py.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.alignment.detection import INSTALL, Detection, Detector
from stylecli.data.alignment.detectors import installed_detector, load_detector
from stylecli.data.alignment.portrait import open_photo
from stylecli.data.pictures import open_picture, quiet
from stylecli.data.reader import Dataset
from stylecli.images import Pictures, provenance_of
from stylecli.progress import Progress, silent

Facts = dict[str, Any]
Profile = npt.NDArray[np.float64]  # [15]: log10 of the power at 1/32 to 15/32 of the sampling rate

NO_PROOF = "none of these signs proves that a picture was generated, or that it was not"
_BANDS = 32  # parts of the sampling rate
_COARSE, _FINE = slice(0, 8), slice(11, 15)  # up to a quarter of the sampling rate; from 3/8 on
_LUMA = np.array([0.299, 0.587, 0.114])
_SEEN_AT = (256, 1024)  # px of the longer side between which faces are looked for
_PATCH = 24  # px of what is compared of eyes and ears
# Centre and half size of what is compared, in distances between the eyes, from the middle between
# them, along their line and across: as faces in photographs have them.
_PLACES = {"eyes": ((0.5, 0.0), (0.3, 0.2)), "ears": ((1.2, 0.35), (0.25, 0.45))}
_COMPARED_SIDE = 32  # px at which training pictures are compared
_READ_AT_ONCE = 64
_REFERENCE = 500  # pictures of a dataset that say what is usual in it
_IPTC = re.compile(r"digitalsourcetype/(\w{1,60})")


def read_signs(
    path: Path, dataset: Dataset | None = None, *, nearest: int = 3, progress: Progress = silent
) -> Facts:
    """Return the signs in a picture as plain values, and ``note``, that they are no proof.

    ``provenance`` is what the file says of itself; ``spectrum`` how its power falls with frequency;
    ``face`` how alike both eyes and both ears are, 1 where they mirror each other, or why this is
    not known. With a dataset, ``spectrum`` also has the distance to its pictures, in their standard
    deviations, and ``nearest`` its nearest pictures. Raises DataError for what is no picture.
    """
    photo, _ = open_photo(path)
    pixels = np.asarray(photo)
    facts: Facts = {"provenance": claimed_source(path), "spectrum": _describe_spectrum(pixels)}
    name = installed_detector()
    if not name:
        facts["face"] = f"no face detector is installed: {INSTALL['dlib']}"
    else:
        found = compare_sides(photo, load_detector(name))
        facts["face"] = found or "no face is found"
    if dataset is not None:
        own, usual = profile_of(pixels), measure_usual(dataset)
        if own is not None and usual is not None:
            facts["spectrum"]["unlike the dataset, deviations"] = round(usual.far(own), 2)
        facts["nearest"] = nearest_pictures(photo, dataset, nearest, progress)
    return facts | {"note": NO_PROOF}


def claimed_source(path: Path) -> str:
    """Return what a file says of how it was made: stylecli's record, the IPTC's type, or nothing.

    Both are lost when a picture is saved again, and anybody can write them.
    """
    with quiet(), open_picture(path) as image:
        if (record := provenance_of(image)) is not None:
            tool = record.get("tool") or f"stylecli {record.get('stylecli', '')}".strip()
            claim = record.get("claim")
            return f"{tool}: a generated picture" + (f" ({claim})" if claim else "")
        for key, value in image.info.items():
            if "xmp" in str(key).lower() and isinstance(value, bytes | str):
                text = value if isinstance(value, str) else value.decode("utf-8", "replace")
                if (found := _IPTC.search(text)) is not None:
                    return f"IPTC digital source type: {found[1]}"
    return "the file says nothing"


def profile_of(pixels: Pictures) -> Profile | None:
    """Return log10 of the mean power at 15 frequencies; None for pictures under 32 px.

    The power of the grey picture under a Hann window, averaged over all directions.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _BANDS:
        return None
    grey = pixels[..., :3] @ _LUMA if pixels.shape[2] >= 3 else pixels[..., 0].astype(np.float64)
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    down, across = np.fft.fftfreq(height), np.fft.fftfreq(width)
    bands = np.rint(np.hypot(down[:, None], across[None]) * _BANDS).astype(int).ravel()
    total = np.bincount(bands, power.ravel(), minlength=_BANDS)
    count = np.bincount(bands, minlength=_BANDS)
    mean = total[1 : _BANDS // 2] / count[1 : _BANDS // 2]
    return np.asarray(np.log10(mean + 1e-6))  # of a plain picture there is none


def describe_fall(profile: Profile) -> tuple[float, float]:
    """Return the exponent by which power falls with frequency, and how far fine details are off.

    The exponent is that up to a quarter of the sampling rate, about 2 in natural photographs; the
    details are those from 3/8 on, in dB above where the exponent would have them.
    """
    frequencies = np.log10(np.arange(1, _BANDS // 2) / _BANDS)
    slope, offset = np.polyfit(frequencies[_COARSE], profile[_COARSE], 1)
    fine = profile[_FINE] - (slope * frequencies[_FINE] + offset)
    return -float(slope), 10 * float(fine.mean())


def _describe_spectrum(pixels: Pictures) -> Facts:
    profile = profile_of(pixels)
    if profile is None:
        return {"fall": f"unknown: under {_BANDS} px"}
    exponent, fine = describe_fall(profile)
    return {
        "power falls by the frequency to the": round(exponent, 2),
        "usual in photographs": "about 2",
        "fine details, dB off that": round(fine, 1),
    }


@dataclass(frozen=True)
class Usual:
    """The spectra of a dataset's pictures."""

    mean: Profile
    deviation: Profile

    def far(self, profile: Profile) -> float:
        """Return how far a spectrum is from the usual ones, in their standard deviations."""
        off = (profile - profile.mean() - self.mean) / self.deviation
        return float(np.sqrt((off**2).mean()))


def usual_of(profiles: npt.NDArray[np.float64]) -> Usual:
    """Return what is usual among spectra [N, 15], whatever their contrast."""
    plain = profiles - profiles.mean(axis=1, keepdims=True)
    return Usual(plain.mean(axis=0), plain.std(axis=0) + 1e-3)


def measure_usual(dataset: Dataset) -> Usual | None:
    """Return the usual spectrum of up to 500 pictures of a dataset, evenly spread.

    None for pictures under 32 px.
    """
    if min(dataset.size) < _BANDS:
        return None
    count = min(len(dataset), _REFERENCE)
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int)
    found = [profile_of(dataset[int(place)][0].transpose(1, 2, 0)) for place in chosen]
    return usual_of(np.array([one for one in found if one is not None]))


def compare_sides(photo: Image.Image, detector: Detector) -> Facts | None:
    """Return how alike both eyes and both ears of the surest face are; None without a face.

    1 where one mirrors the other, 0 where they have nothing in common. What is seen in a turned
    face from one side only lowers it.
    """
    longest = max(photo.size)
    scale = min(_SEEN_AT[1], max(_SEEN_AT[0], longest)) / longest
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    seen = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    faces = detector.detect(seen)
    if not faces:
        return None
    left, right = _eyes(max(faces, key=lambda face: face.score))
    middle, along = (left + right) / 2, right - left
    if not np.hypot(*along):
        return None
    return {
        name: round(_alike(seen, middle, along, centre, half), 3)
        for name, (centre, half) in _PLACES.items()
    }


def _eyes(face: Detection) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the middles of both eyes, that on the left of the picture first."""
    points = np.array(face.landmarks)
    if len(points) > 5:
        return points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    return points[0], points[1]


def _alike(
    photo: Image.Image, middle: npt.NDArray[np.float64], along: npt.NDArray[np.float64],
    centre: tuple[float, float], half: tuple[float, float],
) -> float:  # fmt: skip
    """Return the correlation of a place with the mirrored one on the other side of the face."""
    across = np.array([-along[1], along[0]])
    patches = []
    for side in (-1.0, 1.0):  # outwards, so that both are seen from the nose
        origin = middle + side * (centre[0] - half[0]) * along + (centre[1] - half[1]) * across
        right, down = side * 2 * half[0] / _PATCH * along, 2 * half[1] / _PATCH * across
        matrix = (right[0], down[0], origin[0], right[1], down[1], origin[1])
        patch = photo.transform(
            (_PATCH, _PATCH), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        values = np.asarray(patch, np.float64)
        patches.append(values - values.mean(axis=(0, 1)))
    one, other = patches
    length = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / length) if length else 1.0  # two plain places are alike


def nearest_pictures(
    photo: Image.Image, dataset: Dataset, count: int, progress: Progress = silent
) -> list[Facts]:
    """Return the nearest pictures of a dataset: index and root mean square difference in levels.

    All are compared at 32 px, in their own colours: 0 is the same picture. Near ones say that a
    network may have memorised them.
    """
    own = small_picture(np.asarray(photo.convert("RGB")))
    far = np.empty(len(dataset))
    for start in range(0, len(dataset), _READ_AT_ONCE):
        rows = range(start, min(start + _READ_AT_ONCE, len(dataset)))
        for place, picture in zip(rows, dataset.read(rows), strict=True):
            other = small_picture(picture.transpose(1, 2, 0))
            far[place] = np.sqrt(((own - other) ** 2).mean())
        progress(rows.stop, len(dataset))
    order = np.argsort(far, kind="stable")[:count]
    return [{"index": int(place), "levels": round(float(far[place]), 2)} for place in order]


def small_picture(pixels: Pictures) -> npt.NDArray[np.float64]:
    """Return a picture as RGB [32, 32, 3]."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    plane = pixels[..., 0] if mode == "L" else pixels
    image = Image.fromarray(np.ascontiguousarray(plane), mode).convert("RGB")
    size = (_COMPARED_SIDE, _COMPARED_SIDE)
    return np.asarray(image.resize(size, Image.Resampling.BOX), np.float64)
