"""The report: whole in itself, safe against its own content, readable by everybody."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

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
from stylecli.report.page import report_html, write_report

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
