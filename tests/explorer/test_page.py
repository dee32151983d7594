"""The page of `stylecli explore`: its files, and every screen in a real browser."""

import base64
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import stylecli
import stylecli.explorer
from stylecli.shipped import shipped_network
from tests.browser import BROWSER, in_browser, install_from_npm
from tests.report.made_runs import make_run

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


# ---- in a browser

AXE = "axe-core@4.14.1"  # for these tests only: it is fetched, and never shipped
SCREENS = {
    "face": "#face?seed=3&noise_mode=random",
    "mix": "#mix?faces=3,7,5&take=coarse:1,7:2",
    "figure3": "#mix?view=grid&rows=1,2&cols=3,4",
    "walk": "#walk?through=1,2",
    "directions": "#directions?seed=3&edit=c1:2&strip=c1",
    "training": "#training",
    "sheet": "#sheet?count=6&keep=2",
}
SIZES = [(1280, 800, "light"), (390, 844, "dark")]
together = [*in_browser, pytest.mark.xdist_group("page")]


@dataclass
class Site:
    """A running server, a browser, and what it complained about."""

    address: str
    token: str
    folder: Path
    browser: Any
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(
        self, screen: str = "", width: int = 1280, height: int = 800, scheme: str = "light"
    ) -> Any:
        """Return a page at a screen, once its pictures are there; it is opened with the token."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda told: self._note(told.type, told.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.goto(f"{self.address}/#token={self.token}")
        page.wait_for_selector("h1")
        if screen:
            self.go(page, screen)
        return page

    def go(self, page: Any, screen: str) -> None:
        """Go to another screen, and wait for its pictures."""
        page.evaluate("screen => { location.hash = screen; }", screen)
        settle(page)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)


def until(page: Any, condition: str, seconds: float = 30) -> None:
    """Wait for an expression to hold: the policy refuses Playwright's own way of waiting."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never came true: {condition}"
        page.wait_for_timeout(50)


def settle(page: Any) -> None:
    """Wait until all pictures in sight are there, and the command."""
    page.wait_for_selector("main h1")
    page.wait_for_timeout(400)  # until the hand counts as at rest
    until(
        page,
        """[...document.querySelectorAll("main .thumb, main .frame > img")].every((image) => {
          const { top, bottom } = image.getBoundingClientRect();
          const hidden = !image.checkVisibility() || bottom < 0 || top > innerHeight;
          return hidden || image.naturalWidth > 0;
        }) && !document.querySelector(".waiting")""",
    )


def write_some_directions(folder: Path) -> None:
    """Give the network that comes with stylecli more directions than are shown at first."""
    from stylecli.checkpoint import load_network
    from stylecli.latents.directions import FILE, Direction, Directions, space_of, write_directions
    from stylecli.networks.headers import network_digest

    path = shipped_network()
    assert path is not None
    net = load_network(path)
    width, layers = net.config.w_out_dim, tuple(range(net.config.num_ws))
    units = np.eye(width, dtype=np.float32)
    named = {f"c{place}": Direction(f"c{place}", "sefa", units[place], 1.0, layers)
             for place in range(15)}  # fmt: skip
    target = folder / "out" / "demo" / FILE
    target.parent.mkdir(parents=True)
    space = space_of(net.config, path.name, network_digest(path))
    write_directions(target, Directions(space, named))


@contextlib.contextmanager
def serving(folder: Path, network: str) -> Iterator[tuple[str, str]]:
    """Serve a folder and a network; yield the address and the token."""
    words = ["explore", "--no-open", "--quiet", "--network", network]
    server = subprocess.Popen(
        [sys.executable, "-m", "stylecli", *words], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address, _, token = server.stdout.readline().strip().partition("/#token=")
        yield address, token
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server in a folder with a run of a hostile name, and a browser."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install '.[dev]'"
    )
    pytest.importorskip("starlette", reason="the extra is not installed: pip install '.[explore]'")
    folder = tmp_path_factory.mktemp("site")
    run = make_run(folder / "runs" / "00001-<img src=x onerror=alert(1)>", ticks=20, kimg=40)
    network = shipped_network()
    assert network is not None
    for nimg in (20_000, 40_000):
        shutil.copy(network, run / f"network-snapshot-{nimg:09d}.safetensors")
    write_some_directions(folder)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        with serving(folder, "shipped") as (address, token):
            yield Site(address, token, folder, browser)
        browser.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the source of axe-core, from npm; nothing where it cannot be fetched."""
    folder = install_from_npm(AXE, tmp_path_factory.mktemp("axe"))
    return (folder / "axe.min.js").read_text("utf-8") if folder else ""


@dataclass
class Seen:
    """What a screen looked like."""

    overflow: int  # pixels wider than the window
    axe: list[str]  # what axe-core found


@pytest.fixture(scope="module")
def seen(site: Site, axe: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Walk every screen, narrow and wide, dark and light; STYLECLI_SCREENSHOTS keeps pictures."""
    kept = Path(os.environ.get("STYLECLI_SCREENSHOTS", tmp_path_factory.mktemp("screens")))
    kept.mkdir(parents=True, exist_ok=True)
    found = {}
    for width, height, scheme in SIZES:
        page = site.open("", width, height, scheme)
        for name, screen in SCREENS.items():
            site.go(page, screen)
            page.screenshot(path=kept / f"{name}-{width}-{scheme}.png")
            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            problems: list[str] = []
            if axe:
                complaints = len(site.complaints)
                page.evaluate(
                    "for (const one of document.querySelectorAll('details')) one.open = 1"
                )
                page.evaluate(axe)
                problems = page.evaluate("""
                  axe.run(document, { resultTypes: ["violations"] }).then((all) => all.violations
                    .map((one) => `${one.id}: ${one.nodes[0].html.slice(0, 200)}`))
                """)
                del site.complaints[complaints:]  # axe-core styles elements as it goes
            found[f"{name}-{width}"] = Seen(overflow, problems)
        page.context.close()
    return found


def fetch(site: Site, path: str) -> bytes:
    """Return what the server answers to a program."""
    request = urllib.request.Request(site.address + path, headers={"X-Stylecli-Token": site.token})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


class TestInBrowser:
    """Acts on the page as a reader would."""

    pytestmark = together

    def test_every_screen_fits(self, site: Site, seen: dict[str, Seen]) -> None:
        """No screen is wider than its window, asks another host, or breaks the policy."""
        assert len(seen) == len(SCREENS) * len(SIZES)
        assert {name: one for name, one in seen.items() if one.overflow > 0} == {}
        assert site.complaints == []
        assert {host for host in site.hosts if host} == {urlsplit(site.address).netloc}

    def test_axe_finds_nothing(self, seen: dict[str, Seen], axe: str) -> None:
        if not axe:
            pytest.skip(f"needs npm, and the registry, to fetch {AXE}")
        assert {name: one.axe for name, one in seen.items() if one.axe} == {}

    def test_a_picture_is_the_commands(self, site: Site) -> None:
        page = site.open("#face?seed=5&psi=0.4")
        with page.expect_download() as download:
            page.get_by_role("button", name="Save the picture").click()
        words = shlex.split(page.locator(".command code").text_content())
        assert words[:2] == ["stylecli", "generate"]
        done = subprocess.run(
            [sys.executable, "-m", "stylecli", *words[1:], "--quiet", "--force"],
            cwd=site.folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        written = site.folder / done.stdout.strip()
        assert written.name == download.value.suggested_filename
        assert written.read_bytes() == Path(download.value.path()).read_bytes()
        page.context.close()

    def test_the_address_holds_the_state(self, site: Site) -> None:
        page = site.open()
        assert site.token not in page.url
        page.get_by_role("button", name="Seed: the next").click()
        page.get_by_label("Truncation (psi), exact value").fill("0.25")
        page.keyboard.press("Enter")
        assert urlsplit(page.url).fragment == "face?psi=0.25&seed=1"
        page.reload()
        settle(page)
        assert page.get_by_label("Seed", exact=True).input_value() == "1"
        assert page.get_by_label("Truncation (psi)", exact=True).input_value() == "0.25"
        page.go_back()
        settle(page)
        assert urlsplit(page.url).fragment == "face?seed=1"
        assert page.get_by_label("Truncation (psi)", exact=True).input_value() == "0.7"
        other = page.context.new_page()  # no token of its own: the open page lends it
        other.goto(f"{site.address}/#face?seed=9")
        settle(other)
        assert other.get_by_label("Seed", exact=True).input_value() == "9"
        page.context.close()

    def test_the_newest_state_wins(self, site: Site) -> None:
        """However fast a slider moves: one picture at a time, and the last is the one shown."""
        page = site.open("#face?seed=4")
        flying, most, asked = 0, 0, []

        def slow(route: Any) -> None:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            asked.append(route.request.url)
            answer = route.fetch()
            page.wait_for_timeout(60)
            flying -= 1
            route.fulfill(response=answer)

        page.route("**/api/picture?*", slow)
        page.evaluate("""() => {
          const slider = document.querySelector("input[type=range][max='1.5']");
          for (let step = 0; step <= 100; step += 1) {
            setTimeout(() => {
              slider.value = step / 100;
              slider.dispatchEvent(new Event("input"));
              if (step === 100) slider.dispatchEvent(new Event("change"));
            }, 5 * step);
          }
        }""")
        page.wait_for_timeout(700)
        until(page, "!document.querySelector('.waiting') && location.hash.includes('psi=1')")
        page.unroute_all()
        assert most == 1
        assert 2 <= len(asked) <= 30
        assert "psi=1&" in asked[-1]
        with page.expect_download() as download:
            page.get_by_role("button", name="Save the picture").click()
        assert Path(download.value.path()).read_bytes() == fetch(site, "/api/picture?seed=4&psi=1")
        page.context.close()

    def test_the_keyboard_alone(self, site: Site) -> None:
        page = site.open("#face?seed=3")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")
        seen = set()
        for _ in range(40):  # every control is reached, and shows that it is
            seen.add(
                page.evaluate(
                    "(document.activeElement.labels?.[0] ?? document.activeElement).textContent"
                )
            )
            assert page.evaluate("""() => {
              const { activeElement: one } = document;
              const all = [one, ...one.parentElement.querySelectorAll("span")];
              const outlined = (each) => getComputedStyle(each).outlineStyle !== "none";
              return one === document.body || all.some(outlined);
            }"""), page.evaluate("document.activeElement.outerHTML")
            page.keyboard.press("Tab")
        assert {"Seed", "Truncation (psi)", "Noise strength", "Save"} <= seen
        page.get_by_label("Truncation (psi)", exact=True).focus()
        page.keyboard.press("ArrowRight")
        until(page, "location.hash === '#face?psi=0.71&seed=3'")
        page.get_by_role("link", name="Sheet").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(".wall button")
        page.locator(".wall .tile").first.focus()
        for key in ("k", "ArrowRight", "d", "k"):
            page.keyboard.press(key)
        assert urlsplit(page.url).fragment == "sheet?psi=0.71&keep=0,2&drop=1"
        page.keyboard.press("Enter")
        until(page, "location.hash.startsWith('#face?')")
        assert "seed=2" in page.url
        page.context.close()

    def test_a_photograph_is_dropped(self, site: Site) -> None:
        """Anywhere: the mixer takes it, shows the search live, and stops it on demand."""
        page = site.open("#face?seed=3")
        photo = base64.b64encode(fetch(site, "/api/picture?seed=8&scale=4")).decode()
        page.evaluate(
            """photo => {
              const bytes = Uint8Array.from(atob(photo), (letter) => letter.charCodeAt(0));
              const data = new DataTransfer();
              data.items.add(new File([bytes], "me <b>.png", { type: "image/png" }));
              for (const kind of ["dragenter", "dragover", "drop"]) {
                document.querySelector("main").dispatchEvent(
                  new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
              }
            }""",
            photo,
        )
        page.wait_for_selector(".job")
        assert "me <b>.png" in page.locator(".job").inner_text()
        assert "#mix" in page.url
        page.get_by_role("button", name="Stop").click()
        page.wait_for_selector(".job.failed")
        page.context.close()

    def test_pictures_of_another_shape_keep_it(self, site: Site, tmp_path: Path) -> None:
        """On every screen with pictures; faces are cut out as squares, so that is not offered."""
        widths = {"z_dim": 8, "w_dim": 8, "fmap_base": 64, "fmap_max": 8, "mapping_fmaps": 8}
        wide = stylecli.new_network("f", shape="4:3", resolution=12, **widths)
        stylecli.save_network(tmp_path / "wide.safetensors", wide)
        with serving(tmp_path, "wide.safetensors") as (address, token):
            own = Site(address, token, tmp_path, site.browser)
            page = own.open()
            for screen in ("face", "mix?faces=3,7", "mix?view=grid&rows=1,2&cols=3,4",
                           "walk?through=1,2", "sheet?count=6"):  # fmt: skip
                own.go(page, f"#{screen}")
                shown = page.evaluate("""
                  [...document.querySelectorAll("main canvas, main img")]
                    .filter((one) => one.checkVisibility() && one.clientHeight > 20)
                    .map((one) => one.clientWidth / one.clientHeight)""")
                assert shown and [each for each in shown if abs(each - 4 / 3) > 0.05] == [], screen
                assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            own.go(page, "#mix?faces=3,7")
            assert page.get_by_label("Find the face in it").count() == 0
            assert own.complaints == []
            page.context.close()

    def test_what_is_said_of_a_photograph_is_shown(self, site: Site) -> None:
        """Of one that is projected: a sentence, and the notes, as text."""
        page = site.open("#mix")
        done = {"state": "done", "done": 248, "total": 270, "note": "248 of 270 steps",
                "pictures": 0, "notes": ["<b>small</b> face"], "result": {"face": "4"}}  # fmt: skip
        page.route("**/api/photographs?*", lambda route: route.fulfill(json={"job": "7"}))
        page.route("**/api/jobs/7", lambda route: route.fulfill(json=done))
        page.locator(".drop input[type=file]").set_input_files(
            {"name": "me.png", "mimeType": "image/png", "buffer": b"x"}
        )
        until(page, "location.hash.includes('faces=0,1,4')")
        said = page.locator(".job").inner_text()
        assert "<b>small</b> face" in said and "me.png" in said
        assert "248" not in said and not page.locator(".job progress").is_visible()
        page.context.close()

    def test_a_walk_plays_and_becomes_a_video(self, site: Site) -> None:
        page = site.open("#walk?through=1,2&key_seconds=0.25&fps=15")
        page.get_by_role("button", name="Play").click()
        until(page, "Number(document.querySelector('.player input').value) > 2")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Make the video").click()
        page.get_by_role("button", name="Download").wait_for(timeout=60_000)
        page.reload()  # it is found again
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename.endswith(".mp4")
        assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"
        page.context.close()

    def test_names_of_strangers_are_text(self, site: Site) -> None:
        page = site.open("#training")
        page.wait_for_selector(".run-title")
        assert page.locator(".run-title").inner_text() == "00001-<img src=x onerror=alert(1)>"
        assert page.locator("main img[src=x]").count() == 0
        page.context.close()

    def test_a_lost_server_comes_back(self, site: Site) -> None:
        page = site.open("#face?seed=3")
        before = len(site.complaints)
        page.route("**/api/**", lambda route: route.abort())
        page.get_by_role("button", name="Seed: the next").click()
        page.get_by_role("status").filter(has_text="does not answer").wait_for()
        page.unroute_all()
        until(page, "document.getElementById('banner').hidden")
        settle(page)
        until(page, "document.querySelector('.command code').textContent.includes('--seeds 4')")
        del site.complaints[before:]  # the console reports every request that failed
        page.context.close()

    def test_without_the_token_it_asks_for_the_address(self, site: Site) -> None:
        page = site.browser.new_page()
        page.goto(f"{site.address}/#sheet?count=4")
        page.get_by_label("Or paste it here").fill(f"{site.address}/#token={site.token}")
        page.keyboard.press("Enter")
        page.wait_for_selector(".wall button")
        assert urlsplit(page.url).fragment == "sheet?count=4"
        page.close()

    def test_an_error_is_one_sentence(self, site: Site) -> None:
        page = site.open()
        before = len(site.complaints)
        page.evaluate("location.hash = '#face?face=nobody'")
        until(page, "document.querySelector('.frame-note').textContent !== ''")
        assert "nobody" in page.locator(".frame-note").inner_text()
        del site.complaints[before:]  # the console reports the status
        page.context.close()
