"""The files of the page of `stylecli explore`: small, all there, and within its policy."""

import re
from pathlib import Path

import stylecli.explorer

PAGE = Path(stylecli.explorer.__file__).parent / "page"
MOST_BYTES = 150_000


def read_all() -> dict[str, str]:
    """Return the text of every file of the page, by name."""
    return {path.name: path.read_text("utf-8") for path in sorted(PAGE.iterdir())}


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in PAGE.iterdir()) <= MOST_BYTES


def test_the_page_asks_nobody_else() -> None:
    """The namespace of SVG and the example of an address are the only ones with a host."""
    known = ("http://www.w3.org/2000/svg", "http://127.0.0.1:8765/#token=…")
    for name, text in read_all().items():
        addresses = re.findall(r"""(?:https?:)?//[\w.-]+\.\w[^\s"']*""", text)
        assert [each for each in addresses if each not in known] == [], name


def test_the_page_obeys_its_policy() -> None:
    """No inline script, no inline style, and no text of the server as markup."""
    html = read_all()["index.html"]
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", html)
    for name, text in read_all().items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text
        ), name


def test_every_module_is_there() -> None:
    files = read_all()
    asked = {
        (name, other)
        for name, text in files.items()
        for other in re.findall(r'from "\./([\w.]+)"|(?:href|src)="/page/([\w.]+)"', text)
        for other in other
        if other
    }
    assert {(name, other) for name, other in asked if other not in files} == set()
    reached, waiting = set(), {"main.js", "explore.css", "icon.svg", "index.html"}
    while waiting:
        reached |= waiting
        waiting = {other for name, other in asked if name in reached} - reached
    assert set(files) == reached


def test_every_icon_is_drawn() -> None:
    files = read_all()
    drawn = set(re.findall(r'id="icon-(\w+)"', files["index.html"]))
    used = {
        name for text in files.values() for name in re.findall(r'icon: "(\w+)"|icon\("(\w+)"', text)
        for name in name if name
    }  # fmt: skip
    assert used - drawn == set()
