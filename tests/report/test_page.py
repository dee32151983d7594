"""The report: whole in itself, safe against its own content, readable by everybody."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.report.content import (
    Chart,
    Clip,
    Commands,
    Line,
    Number,
    Numbers,
    Picture,
    Report,
    Section,
    Slides,
    Table,
)
from stylecli.report.page import (
    choose_evenly,
    prepare_sheets,
    recompress,
    report_html,
    whole_enlargement,
    write_report,
)
from tests.report.made_runs import save_sheet

FACE = np.full((8, 8, 3), 90, dtype=np.uint8)
BLOCKS = [
    Picture(FACE, "a face", "Seed 1."),
    Slides(["1 kimg", "2 kimg"], [FACE, FACE], "faces", "Same seeds."),
    Clip(b"not really a video", "a walk"),
    Chart("Losses", [Line("generator", [0, 1], [2.0, 1.0])], "kimg", "loss"),
    Numbers([Number("FID", "12.5", "Distance to the real pictures.", "2,000 pictures")]),
    Table(["kimg", "note"], [["1", "start"], ["2", "end"]]),
    Commands(["stylecli mix --rows 5"]),
]
VOID = {"meta", "img", "input", "br", "link"}


class _Outline(HTMLParser):
    """Collects tags with attributes and checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _page(*blocks: object, **fields: object) -> str:
    section = Section("What came out", ["Made with `stylecli demo`."], blocks)  # type: ignore[arg-type]
    return report_html(Report("Faces", "A lead.", [section], **fields))  # type: ignore[arg-type]


def _outline(page: str) -> list[tuple[str, dict[str, str | None]]]:
    outline = _Outline()
    outline.feed(page)
    assert outline.open == []
    return outline.seen


def test_every_kind_of_content_becomes_well_formed_html() -> None:
    tags = [tag for tag, _ in _outline(_page(*BLOCKS))]

    for wanted in ("img", "video", "svg", "table", "pre", "input", "figcaption"):
        assert wanted in tags


def test_nothing_is_loaded_from_outside() -> None:
    page = _page(*BLOCKS)

    addresses = [value for _, attributes in _outline(page) for name, value in attributes.items()
                 if name in ("src", "href", "poster", "srcset")]  # fmt: skip
    assert addresses and all(a and a.startswith(("data:", "#")) for a in addresses)
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", page)


def test_every_picture_has_words_for_those_who_do_not_see_it() -> None:
    seen = _outline(_page(*BLOCKS))

    assert all(attributes.get("alt") for tag, attributes in seen if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in seen if tag in ("svg", "video"))


def test_content_cannot_become_markup() -> None:
    hostile = "<script>alert(1)</script>\" onload='x'"
    page = _page(
        Picture(FACE, hostile, hostile), Table([hostile], [[hostile]]), Commands([hostile]),
        Chart(hostile, [Line(hostile, [0, 1], [0, 1])], hostile), facts=[(hostile, hostile)],
    )  # fmt: skip

    assert [tag for tag, _ in _outline(page)].count("script") == 1
    assert not any("onload" in attributes for _, attributes in _outline(page))


def test_small_pictures_are_shown_large_by_whole_pixels() -> None:
    image = next(a for tag, a in _outline(_page(Picture(FACE, "a face"))) if tag == "img")

    assert (image["width"], image["height"]) == ("616", "616")  # 77 times 8


def test_numbers_align_right_and_words_left() -> None:
    page = _page(Table(["kimg", "note"], [["1", "start"], ["–", "end"]]))

    assert '<td class="right">1</td><td>start</td>' in page


def test_slides_need_a_label_each() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 slides"):
        _page(Slides(["1 kimg"], [FACE, FACE], "faces"))


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", Report("Faces", "Größe.", []))

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Größe." in text and text.endswith("</html>\n")


def test_the_first_the_last_and_the_best_are_among_the_chosen() -> None:
    chosen = choose_evenly(range(0, 1000, 10), {370}, 8)

    assert len(chosen) <= 8 and {0, 370, 990} <= set(chosen)
    assert chosen == sorted(chosen)


def test_few_sheets_stay_as_they_are() -> None:
    assert choose_evenly([0, 5, 9], {5}, 8) == [0, 5, 9]


def test_an_enlargement_is_undone_without_loss(tmp_path: Path) -> None:
    save_sheet(tmp_path / "a.png", 32)

    content, lossy = recompress(tmp_path / "a.png", 100_000)
    with Image.open(tmp_path / "a.png") as before, Image.open(io.BytesIO(content)) as after:
        assert after.size == (32, 32) and not lossy
        assert np.array_equal(np.asarray(after.resize(before.size, 0)), np.asarray(before))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_enlargement_is_recognised(scale: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, size=(16, 16, 3), dtype=np.uint8)

    assert whole_enlargement(picture.repeat(scale, axis=0).repeat(scale, axis=1)) == scale


def test_a_large_sheet_becomes_a_small_jpeg(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1500).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (1500, 1))] * 3, axis=-1)).save(tmp_path / "a.png")

    content, lossy = recompress(tmp_path / "a.png", 60_000)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG" and image.size == (1024, 1024)
    assert lossy and len(content) < 60_000


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (200, 0, 0, 0)).save(tmp_path / "a.png")

    content, _ = recompress(tmp_path / "a.png", 100_000)
    with Image.open(io.BytesIO(content)) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_page_says_what_was_left_out(tmp_path: Path) -> None:
    for nimg in range(10):
        save_sheet(tmp_path / f"{nimg}.png", 16)
    (tmp_path / "9.png").write_bytes(b"torn")

    sheets = prepare_sheets([(nimg, tmp_path / f"{nimg}.png") for nimg in range(10)], count=4)
    assert len(sheets.pictures) == len(sheets.nimg) == 3
    assert "4 of 10 sheets" in sheets.note and "1 could not be read" in sheets.note


def test_noise_too_is_brought_to_its_share(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(1024, 1024, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png", compress_level=1)

    assert len(recompress(tmp_path / "a.png", 60_000)[0]) <= 60_000
