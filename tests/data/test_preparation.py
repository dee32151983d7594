"""One picture through the whole recipe, and pictures that were made to break it."""

import functools
import io
import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from stylecli.data.alignment.geometry import AlignSettings, Face
from stylecli.data.format import decode, pixel_digest
from stylecli.data.pack_settings import PackSettings, choose_recipe
from stylecli.data.pictures import BROKEN_PROFILE
from stylecli.data.preparation import (
    ALIASES,
    TRANSFORMS,
    Placement,
    Prepared,
    Recipe,
    Skipped,
    choose_resolution,
    name_transform,
    place,
    prepare,
    prepare_all,
    target_size,
)
from stylecli.data.sources.folders import ImageFolder
from stylecli.errors import DataError, UsageError
from tests.data.profiles import linear_grey_profile, wide_gamut_profile


@dataclass(frozen=True)
class Held:
    """An item whose file is held in memory."""

    content: bytes
    name: str = "held"
    label: None = None
    metadata: None = None

    def open(self):
        """Open what is held."""
        return Image.open(io.BytesIO(self.content))


@dataclass(frozen=True)
class Failing(Held):
    """An item that raises."""

    error: Exception | None = None

    def open(self):
        """Fail."""
        raise self.error


def held(picture, kind="png", **options):
    """Return an item of a picture stored in a file format."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return Held(file.getvalue())


def noise(width, height, channels=3):
    """Return random pixels as a picture."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def pixels(item, recipe):
    """Prepare an item that must not be skipped."""
    prepared = prepare(item, recipe)
    assert isinstance(prepared, Prepared), prepared
    return prepared.pixels


def planes(picture):
    """Return a picture as [C, H, W]."""
    array = np.asarray(picture)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.mark.parametrize("name", ["lanczos", "box", "bicubic"])
@pytest.mark.parametrize("size", [(64, 64), (50, 37), (16, 16)])
def test_equals_pillows_crop_and_resize(name, size):
    picture = noise(*size)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    expected = square.resize((16, 16), Image.Resampling[name.upper()])
    assert (pixels(held(picture), Recipe(16, filter=name)) == planes(expected)).all()


def test_box_filter_takes_plain_means_of_a_jpeg_too():
    item = held(noise(64, 64), "jpeg", quality=95)
    means = planes(item.open()).reshape(3, 4, 16, 4, 16).mean((2, 4))
    assert np.abs(pixels(item, Recipe(4, filter="box")) - means).max() <= 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("codec", ["raw", "png", "webp"])
def test_stores_what_decodes_to_its_pixels(channels, codec):
    prepared = prepare(held(noise(16, 16, 4)), Recipe(16, channels, codec=codec))
    assert prepared.pixels.shape == (channels, 16, 16) and prepared.side == 16
    assert (decode(prepared.stored, codec, prepared.shape) == prepared.pixels).all()
    assert prepared.digest == pixel_digest(prepared.pixels.tobytes())


def test_the_canvas_is_black_and_clear():
    white = held(Image.new("RGBA", (16, 8), "white"))
    wide = pixels(white, Recipe(16, 3, transform="wide", height=8))
    assert (wide[:, :4] == 0).all() and (wide[:, 4:12] == 255).all() and (wide[:, 12:] == 0).all()
    padded = pixels(held(Image.new("RGBA", (16, 7), "white")), Recipe(16, 4, transform="pad"))
    assert (padded[3].sum(1) == [0] * 4 + [255 * 16] * 7 + [0] * 5).all()


def test_celeba_takes_the_known_rows_and_columns():
    picture = noise(178, 218)
    expected = planes(picture)[:, 57:185, 25:153]
    assert (pixels(held(picture), Recipe(128, transform="celeba")) == expected).all()


def test_small_pictures_are_skipped_unless_enlarged():
    skipped = prepare(held(noise(20, 12)), Recipe(16))
    assert skipped.cause.startswith("is too small: 20 x 12 px for 16 x 16; ")
    enlarged = prepare(held(noise(20, 12)), Recipe(16, enlarge=True))
    assert enlarged.side == 12 and enlarged.enlarged and enlarged.pixels.shape == (3, 16, 16)
    assert not prepare(held(noise(20, 12)), Recipe(16, transform="letterbox")).enlarged


def deep_grey(kind, width, height, share):
    """Return the bytes of a deep grey picture of one level, a share of white."""
    if kind == "pgm":
        level = round(65535 * share).to_bytes(2, "big")
        return b"P5 %d %d 65535\n" % (width, height) + level * (width * height)
    if kind == "png":
        level = round(65535 * share)
        return held(Image.fromarray(np.full((height, width), level, np.uint16))).content
    # Pillow reads 12-bit TIFF and cannot write it: two pixels are three bytes.
    level = round(4095 * share)
    body = (level << 12 | level).to_bytes(3, "big") * (width * height // 2)
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 12), (259, 3, 1, 1),
            (262, 3, 1, 1), (273, 4, 1, 200), (277, 3, 1, 1), (278, 3, 1, height),
            (279, 4, 1, len(body))]  # fmt: skip
    entries = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        + value.to_bytes(4, "little") for tag, kind, count, value in tags
    )  # fmt: skip
    head = b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little")
    return (head + entries + bytes(4)).ljust(200, b"\0") + body


@pytest.mark.parametrize("kind", ["tiff12", "pgm", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_deep_grey_the_same_levels(tmp_path, kind, channels):
    (tmp_path / "deep").write_bytes(deep_grey(kind, 48, 32, 0.25))
    item = Held((tmp_path / "deep").read_bytes())
    for transform in ("center-crop", "letterbox", "wide", "tall", "stretch"):
        for upright in (False, True):
            recipe = Recipe(16, channels, transform=transform, exif=upright)
            packed = pixels(item, recipe)
            assert set(np.unique(packed[packed > 0])) == {64}, (transform, upright)
    points = ((20, 14), (28, 14), (24, 17), (21, 20), (27, 20))
    for upright in (False, True):
        face = Face(tmp_path / "deep", "deep", points, upright=upright)
        aligned = AlignSettings(size=16).align(face)
        assert set(np.unique(np.asarray(aligned))) == {64}, upright


@pytest.mark.parametrize(
    ("picture", "profile"),
    [(Image.new("L", (48, 48), 100), linear_grey_profile()),
     (Image.new("RGB", (48, 48), (10, 200, 30)), wide_gamut_profile()),
     (Image.new("CMYK", (48, 48), (10, 200, 30, 40)), wide_gamut_profile())],
    ids=["grey", "colour", "of another kind"],
)  # fmt: skip
def test_a_profile_counts_the_same_packed_and_aligned(tmp_path, picture, profile):
    picture.save(tmp_path / "a.tiff", icc_profile=profile)
    points = ((20, 18), (28, 18), (24, 22), (21, 26), (27, 26))
    aligned = AlignSettings(size=16).align(Face(tmp_path / "a.tiff", "a", points, upright=True))
    packed = pixels(Held((tmp_path / "a.tiff").read_bytes()), Recipe(16))
    assert (planes(aligned) == packed).all()
    if picture.mode == "L":
        assert packed.min() > 150


def test_greys_of_mode_i_are_a_grey_set(tmp_path):
    for number, share in enumerate((0.25, 0.5, 0.75)):
        (tmp_path / f"{number}.pgm").write_bytes(deep_grey("pgm", 40, 32, share))
    recipe = choose_recipe(ImageFolder(tmp_path), range(3), PackSettings())
    assert (recipe.channels, recipe.resolution) == (1, 32)


def test_damaged_exif_is_no_reason_to_skip():
    item = held(noise(24, 20), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert prepare(item, Recipe(16, exif=True)).pixels.shape == (3, 16, 16)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_unless_they_stay_as_stored(kind, orientation):
    picture = Image.new("RGB", (24, 48), "black")
    picture.paste("red", (0, 0, 24, 12))
    exif = Image.Exif()
    exif[274] = orientation
    item = held(picture, kind, exif=exif)
    recipe = Recipe(16, transform="letterbox", exif=True)
    upright = ImageOps.exif_transpose(picture_with(picture, exif))
    expected = pixels(held(upright), Recipe(16, transform="letterbox"))
    assert np.abs(pixels(item, recipe).astype(int) - expected).max() < 25  # JPEG and WebP lose
    if kind != "tiff":  # which Pillow itself turns
        stored = pixels(held(picture), Recipe(16, transform="letterbox"))
        as_stored = pixels(item, Recipe(16, transform="letterbox", exif=False))
        assert np.abs(as_stored.astype(int) - stored).max() < 25


def picture_with(picture, exif):
    """Return a picture that carries EXIF."""
    copy = picture.copy()
    copy.getexif().update(exif)
    return copy


def test_an_upright_jpeg_is_drafted_as_well():
    exif = Image.Exif()
    exif[274] = 6
    smooth = Image.linear_gradient("L").resize((320, 200)).convert("RGB")
    item = held(smooth, "jpeg", quality=95, exif=exif)
    turned = held(ImageOps.exif_transpose(item.open()))
    recipe = Recipe(32, exif=True)
    assert np.abs(pixels(item, recipe).astype(int) - pixels(turned, Recipe(32))).max() <= 3


def test_profiles_are_converted_unless_ignored():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    picture = noise(16, 16)
    odd = held(picture, icc_profile=lab)
    assert prepare(odd, Recipe(16)).note == BROKEN_PROFILE
    assert prepare(odd, Recipe(16, icc="ignore")).note == ""
    assert (pixels(odd, Recipe(16)) == planes(picture)).all()


@pytest.mark.parametrize(
    ("item", "cause"),
    [
        (Held(b"no picture"), "is not a picture of a known kind"),
        (Held(held(noise(64, 64)).content[:-3000]), "is cut short: copy it again"),
        (Failing(b"", error=DataError("has no face")), "has no face"),
        (Failing(b"", error=MemoryError()), "does not fit into memory"),
        (Failing(b"", error=RecursionError("too deep")), "cannot be decoded: too deep"),
        (held(Image.new("F", (16, 16)), "tiff"), "has F pixels: expected 8 or 16 bits a channel"),
    ],
)
def test_bad_pictures_are_skipped_with_their_cause(item, cause):
    skipped = prepare(item, Recipe(16))
    assert isinstance(skipped, Skipped) and skipped.cause.startswith(cause)


@pytest.mark.parametrize(
    "wrong",
    [{"resolution": 0}, {"channels": 2}, {"filter": "nearest"}, {"codec": "jpeg"},
     {"transform": "squeeze"}, {"icc": "maybe"}, {"background": (0, 0, 300)}],
)  # fmt: skip
def test_refuses_settings_by_name(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Recipe(**{"resolution": 16, **wrong})


def test_the_record_survives_json_and_names_what_decides():
    recipe = Recipe(64, transform="center-crop-wide", background=[1, 2, 3], codec="png")
    record = json.loads(json.dumps(recipe.recorded()))
    assert record["transform"] == "wide" and record["height"] == 48 and "codec" not in record
    assert Recipe(**record).recorded() == recipe.recorded()


def test_several_processes_prepare_the_same_pictures(tmp_path):
    for number in range(6):
        noise(20 + number, 20).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    source, recipe = ImageFolder(tmp_path), Recipe(16)
    here, there = (list(prepare_all(source, range(6), recipe, workers=n)) for n in (1, 2))
    assert [type(result) for result in here] == [type(result) for result in there]
    assert here[3] == there[3] == Skipped("3.png", "is not a picture of a known kind")
    assert [r.digest for r in here if r != here[3]] == [r.digest for r in there if r != here[3]]


FORMATS = ["png", "jpeg", "gif", "webp", "tiff", "bmp", "ico", "ppm", "tga", "avif", "jpeg2000",
           "dds", "sgi", "pcx", "icns", "qoi"]  # fmt: skip


@functools.cache
def sample(kind, mode):
    """Return a small file of a format, or of PNG where the format lacks the mode."""
    picture = noise(24, 20).convert(mode)
    exif = Image.Exif()
    exif[274] = 6
    for options in ({"exif": exif}, {}):
        try:
            return held(picture, kind, **options).content
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return held(picture.convert("L")).content


@st.composite
def hostile_files(draw):
    """Draw a real file, then damage it: bytes changed, a piece lost, doubled or left out."""
    kind = draw(st.sampled_from(FORMATS))
    content = bytearray(sample(kind, draw(st.sampled_from(["L", "RGB", "RGBA", "P", "1", "CMYK"]))))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(content) - 1) | st.integers(0, min(60, len(content) - 1)))
        content[place] = draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    start = draw(st.integers(0, len(content)))
    end = min(len(content), start + draw(st.integers(0, 64)))
    match draw(st.sampled_from(["keep", "cut", "lose", "double"])):
        case "cut":
            del content[start:]
        case "lose":
            del content[start:end]
        case "double":
            content[end:end] = content[start:end]
    return bytes(content)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    hostile_files(),
    st.sampled_from([1, 3, 4]),
    st.sampled_from(["center-crop", "letterbox", "wide", "pad", "stretch"]),
    st.booleans(),
)
def test_hostile_files_are_used_or_skipped(content, channels, transform, upright):
    recipe = Recipe(16, channels, transform=transform, exif=upright, enlarge=upright)
    result = prepare(Held(content), recipe)
    if isinstance(result, Prepared):
        assert result.pixels.shape == (channels, 16, 16)
    else:
        assert result.cause and "\n" not in result.cause and len(result.cause) < 250


def placed(transform, picture, resolution, **sides):
    """Place a picture of (width, height)."""
    canvas = (resolution, resolution)
    return place(transform, picture, canvas, target_size(transform, canvas, **sides))


@pytest.mark.parametrize(
    ("transform", "picture", "expected"),
    [
        ("center-crop", (10, 4), Placement((3, 0, 7, 4), (8, 8), (0, 0))),
        ("center-crop", (5, 10), Placement((0, 2, 5, 7), (8, 8), (0, 0))),
        ("wide", (16, 16), Placement((0, 2, 16, 14), (8, 6), (0, 1))),
        ("wide", (40, 12), Placement((12, 0, 28, 12), (8, 6), (0, 1))),
        ("tall", (16, 16), Placement((2, 0, 14, 16), (6, 8), (1, 0))),
        ("letterbox", (16, 4), Placement((0, 0, 16, 4), (8, 2), (0, 3))),
        ("letterbox", (3, 9), Placement((0, 0, 3, 9), (3, 8), (2, 0))),
        ("letterbox", (9000, 9), Placement((0, 0, 9000, 9), (8, 1), (0, 3))),
        ("pad", (5, 8), Placement((0, 0, 5, 8), (5, 8), (1, 0))),
        ("stretch", (20, 10), Placement((0, 0, 20, 10), (8, 8), (0, 0))),
        ("celeba", (178, 218), Placement((25, 57, 153, 185), (8, 8), (0, 0))),
    ],
)
def test_places_a_picture(transform, picture, expected):
    assert placed(transform, picture, 8) == expected


def test_lsun_cars_keep_their_proportions():
    assert placed("wide", (512, 384), 512) == placed("letterbox", (512, 384), 512)
    assert placed("wide", (512, 384), 512) == Placement((0, 0, 512, 384), (512, 384), (0, 64))


def test_wide_and_tall_take_other_sides():
    assert placed("wide", (64, 36), 64, height=36) == Placement((0, 0, 64, 36), (64, 36), (0, 14))
    assert placed("tall", (36, 64), 64, width=36) == Placement((0, 0, 36, 64), (36, 64), (14, 0))


@pytest.mark.parametrize(
    ("transform", "sides"),
    [("wide", {"width": 32}), ("wide", {"height": 128}), ("tall", {"height": 32}),
     ("center-crop", {"height": 32}), ("stretch", {"width": 32})],
)  # fmt: skip
def test_sides_that_do_not_fit_are_refused(transform, sides):
    with pytest.raises(UsageError, match="do not fit transform"):
        target_size(transform, (64, 64), **sides)


def test_scale_is_that_of_the_direction_with_fewer_pixels():
    assert placed("stretch", (32, 16), 8).scale == 2
    assert placed("center-crop", (6, 6), 8).scale < 1


def test_pictures_without_a_place_are_refused():
    with pytest.raises(DataError, match="is 9 x 4 px, larger than 8"):
        placed("pad", (9, 4), 8)
    with pytest.raises(DataError, match="celeba is for the aligned pictures of 178 x 218"):
        placed("celeba", (218, 178), 128)


def test_nvidias_names_are_known():
    assert name_transform("center-crop-wide") == "wide" and name_transform("none") == "stretch"
    assert {name_transform(name) for name in (*TRANSFORMS, *ALIASES)} == set(TRANSFORMS)
    with pytest.raises(UsageError, match="'squeeze': expected one of center-crop, subject, wide"):
        name_transform("squeeze")


@pytest.mark.parametrize(
    ("transform", "sizes", "expected"),
    [
        ("center-crop", [(40, 40)] * 95 + [(20, 20)] * 5, 32),
        ("center-crop", [(40, 40)] * 94 + [(20, 20)] * 6, 16),
        ("center-crop", [(5000, 5000)], 1024),
        ("center-crop", [(2, 2)], 4),
        ("center-crop", [], 4),
        ("letterbox", [(64, 10)], 64),
        ("wide", [(512, 384)], 512),
        ("wide", [(512, 300)], 256),
        ("stretch", [(100, 40)], 32),
        ("pad", [(28, 28)] * 99 + [(40, 40)], 32),
        ("pad", [(5000, 10)], 1024),
        ("celeba", [(178, 218)], 128),
    ],
)
def test_chooses_what_nearly_all_pictures_reach(transform, sizes, expected):
    assert choose_resolution(sizes, transform, 1024) == expected


def test_one_small_picture_among_a_few_does_not_decide() -> None:
    assert choose_resolution([(700, 700)] * 10 + [(5, 5)], "center-crop", 1024) == 512
    assert choose_resolution([(64, 64)], "center-crop", 1024) == 64


@pytest.mark.parametrize("shape", [(96, 32), (32, 96)])
@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_square_is_cut_towards_what_stands_out(shape, place):
    picture = Image.new("RGB", shape, (120, 140, 160))
    x, y = (place if side == max(shape) else 0.5 for side in shape)
    left, top = round(x * shape[0]) - 6, round(y * shape[1]) - 6
    picture.paste("red", (left, top, left + 12, top + 12))
    cut = pixels(held(picture), Recipe(32, transform="subject", subject="contrast"))
    red = (cut[0] > 200) & (cut[1] < 60)
    assert red.sum() == 144  # all of it is inside
    plain = pixels(held(Image.new("RGB", shape)), Recipe(32, transform="subject"))
    assert not plain.any()


def test_faces_decide_where_the_square_is():
    picture = Image.new("RGB", (96, 32), "grey")
    picture.paste("red", (0, 8, 12, 20))  # what stands out, and is no face
    picture.paste("blue", (80, 8, 92, 20))
    recipe = Recipe(32, transform="subject", subject="dlib")
    cut = prepare(held(picture), recipe, lambda image: [(80, 8, 92, 20)]).pixels
    assert (cut[2] > 200).sum() >= 140 and not (cut[0] > 200).any()
    assert "subject" not in Recipe(32).recorded() and recipe.recorded()["subject"] == "dlib"
