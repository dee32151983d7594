"""The page of `stylecli explore` in a real browser: one server, one page, every screen."""

import base64
import os
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

import pytest
import torch
from typer.testing import CliRunner

import stylecli
from stylecli.cli.app import app
from stylecli.saved_ws import save_ws
from stylecli.shipped import shipped_network
from tests.browser import BROWSER, in_browser, install_from_npm
from tests.report.made_runs import make_run

AXE = "axe-core@4.14.1"  # for these tests only: it is fetched, and never shipped
WIDE = "runs/00000-wide/network-snapshot-000001000.safetensors"  # 16x12 px
SCREENS = {
    "face": "#face?seed=3&noise_mode=random",
    "mix": "#mix?faces=3,7,5&take=coarse:1,7:2",
    "figure3": "#mix?view=grid&rows=1,2&cols=3,4",
    "walk": "#walk?through=1,2",
    "directions": "#directions?seed=3&edit=sefa.1:2&strip=sefa.1",
    "training": "#training",
    "sheet": "#sheet?count=6&keep=2",
}
WALKS = [  # window, colours, network, screens
    (1280, 800, "light", "", list(SCREENS)),
    (390, 844, "dark", WIDE, list(SCREENS)),
    (3840, 2160, "dark", "", ["walk"]),
]
DIALOGS = {  # screen, and the button that opens it
    "pick": ("#mix?faces=3,7", ".switches thead .tile"),
    "keep": ("#face?seed=3", "button[aria-label='Keep this face']"),
}
together = [*in_browser, pytest.mark.xdist_group("page")]

# Drops a picture on the page.
DROP = """photo => {
  const bytes = Uint8Array.from(atob(photo), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "me <b>.png", { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.querySelector("main").dispatchEvent(
      new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""


@dataclass
class Site:
    """A running server, a page of a browser, and what it complained about."""

    address: str
    token: str
    folder: Path
    browser: Any
    page: Any = None  # the one that all tests act on
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(
        self, screen: str = "", width: int = 1280, height: int = 800, scheme: str = "light"
    ) -> Any:
        """Return the page at a screen, once its pictures are there; it opens with the token."""
        if self.page is None:
            self.page = page = self.browser.new_context(accept_downloads=True).new_page()
            page.set_default_timeout(30_000)
            page.on("console", lambda told: self._note(told.type, told.text))
            page.on("pageerror", lambda error: self.complaints.append(str(error)))
            page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
            page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
            page.goto(f"{self.address}/#token={self.token}")
            page.wait_for_selector("h1")
        self.page.unroute_all()
        self.page.set_viewport_size({"width": width, "height": height})
        # What moves while pictures are awaited would cost more than the pictures.
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.go(self.page, screen or "#face")
        return self.page

    def go(self, page: Any, screen: str) -> None:
        """Go to another screen, and wait for its pictures."""
        page.evaluate(
            """screen => new Promise((done) => {
              if (location.hash === screen) done();
              addEventListener("popstate", () => setTimeout(done), { once: true });
              location.hash = screen;
            })""",
            screen,
        )
        settle(page)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)


def until(page: Any, condition: str, seconds: float = 30) -> None:
    """Wait for an expression to hold: the policy refuses Playwright's own way of waiting."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never came true: {condition}"
        page.wait_for_timeout(100)


def settle(page: Any) -> None:
    """Wait until the network is open, all pictures in sight are there, and the command."""
    page.wait_for_selector("main h1")
    until(
        page,
        """(() => {
          const [, wanted] = /network=([^&]*)/.exec(location.hash) ?? [null, "shipped"];
          const network = document.querySelector("#settings select")?.value;
          const training = document.querySelector("main.training");
          return decodeURIComponent(wanted) === network
            && !document.querySelector(".waiting")
            && (!training || training.querySelector(".run-title"))
            && [...document.querySelectorAll("main .command")]
              .every((one) => (!one.hidden && one.ariaBusy !== "true")
                || !one.parentElement.checkVisibility())
            && [...document.querySelectorAll("main .thumb, main .frame > img")].every((image) => {
              const { top, bottom } = image.getBoundingClientRect();
              const hidden = !image.checkVisibility() || bottom < 0 || top > innerHeight;
              return hidden || image.naturalWidth > 0;
            });
        })()""",
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server in a folder with a run of a hostile name, and a browser."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install '.[dev]'"
    )
    pytest.importorskip("starlette", reason="the extra is not installed: pip install '.[explore]'")
    folder = tmp_path_factory.mktemp("site")
    make_run(folder / "runs" / "00000-wide", ticks=2, kimg=1)
    wide = stylecli.new_network(
        "f", shape="4:3", resolution=12, z_dim=8, w_dim=8, fmap_base=64, fmap_max=8,
        mapping_fmaps=8, mapping_layers=2,
    )  # fmt: skip
    stylecli.save_network(folder / WIDE, wide)
    run = make_run(folder / "runs" / "00001-<img src=x onerror=alert(1)>", ticks=20, kimg=40)
    network = shipped_network()
    assert network is not None
    for nimg in (20_000, 40_000):
        shutil.copy(network, run / f"network-snapshot-{nimg:09d}.safetensors")
    words = ["explore", "--no-open", "--quiet", "--network", "shipped"]
    server = subprocess.Popen(
        [sys.executable, "-m", "stylecli", *words], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address, _, token = server.stdout.readline().strip().partition("/#token=")
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
            yield Site(address, token, folder, browser)
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)


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

    def look(name: str) -> None:
        page.screenshot(path=kept / f"{name}.png")
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found[name] = Seen(overflow, judge(site, page, axe) if axe and width < 2000 else [])

    for width, height, scheme, network, screens in WALKS:
        page = site.open("", width, height, scheme)
        for name in screens:
            screen = SCREENS[name]
            if network and name == "directions":  # it has none: a button finds some
                screen = "#directions?seed=3"
            if network:
                screen += ("&" if "?" in screen else "?") + f"network={network}"
            site.go(page, screen)
            look(f"{name}-{width}-{scheme}")
        if width == WALKS[0][0]:
            for name, (screen, opener) in DIALOGS.items():
                site.go(page, screen)
                page.locator(opener).first.click()
                page.locator("dialog[open]").wait_for()
                look(f"{name}-{width}-{scheme}")
                page.keyboard.press("Escape")
    return found


def judge(site: Site, page: Any, axe: str) -> list[str]:
    """Return what axe-core finds on the page as it is, with everything unfolded."""
    complaints = len(site.complaints)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = 1")
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(axe)
    problems: list[str] = page.evaluate("""
      axe.run(document, { resultTypes: ["violations"] }).then((all) => all.violations
        .map((one) => `${one.id}: ${one.nodes[0].html.slice(0, 200)}`))
    """)
    del site.complaints[complaints:]  # axe-core styles elements as it goes
    return problems


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
        assert len(seen) == sum(len(screens) for *_, screens in WALKS) + len(DIALOGS)
        assert {name: one for name, one in seen.items() if one.overflow > 0} == {}
        assert site.complaints == []
        assert {host for host in site.hosts if host} == {urlsplit(site.address).netloc}

    def test_axe_finds_nothing(self, seen: dict[str, Seen], axe: str) -> None:
        if not axe:
            pytest.skip(f"needs npm, and the registry, to fetch {AXE}")
        assert {name: one.axe for name, one in seen.items() if one.axe} == {}

    def test_a_picture_is_the_commands(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        page = site.open("#face?seed=5&psi=0.4")
        until(page, "document.querySelector('.command code').textContent.includes('--seeds 5 ')")
        with page.expect_download() as download:
            page.get_by_role("button", name="Save the picture").click()
        words = shlex.split(page.locator(".command code").text_content())
        assert words[:2] == ["stylecli", "generate"]
        monkeypatch.chdir(site.folder)
        done = CliRunner().invoke(app, [*words[1:], "--quiet", "--force"])
        written = site.folder / done.stdout.strip()
        assert written.name == download.value.suggested_filename
        assert written.read_bytes() == Path(download.value.path()).read_bytes()

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
        other.close()

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

    def test_the_keyboard_alone(self, site: Site) -> None:
        page = site.open("#face?seed=3")
        page.reload()  # nothing has the focus
        settle(page)
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

    def test_a_photograph_is_dropped_and_mixed(self, site: Site) -> None:
        """Anywhere: the mixer takes it, shows the search, stops it on demand, then mixes it."""
        page = site.open(f"#face?seed=3&network={WIDE}")
        photo = base64.b64encode(fetch(site, "/api/picture?seed=8")).decode()
        page.evaluate(DROP, photo)
        page.wait_for_selector(".job")
        assert "me <b>.png" in page.locator(".job").inner_text()
        assert "#mix" in page.url
        page.get_by_role("button", name="Stop").click()
        page.wait_for_selector(".job.failed")
        page.evaluate(DROP, photo)
        until(page, "location.hash.includes('.npz')", 180)
        settle(page)
        assert "is projected" in page.locator(".job").inner_text()
        assert page.locator(".switches").first.locator("thead .tile").count() == 3
        (face,) = site.folder.glob("out/00000-wide-000001000/projected/*.npz")
        page.get_by_label("Fine from B").check(force=True)
        name = face.relative_to(site.folder).as_posix()
        until(page, "document.querySelector('.command code').textContent.includes('fine:1')")
        settle(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Save the picture").click()
        mixed = f"/api/picture?network={WIDE}&seed=0&mix=fine:1&mix=coarse:{name}"
        assert Path(download.value.path()).read_bytes() == fetch(site, mixed)

    def test_pictures_of_another_shape_keep_it(self, site: Site) -> None:
        """On every screen with pictures; faces are cut out as squares, so that is not offered."""
        page = site.open()
        for name in ("face", "figure3", "walk", "sheet", "mix"):
            screen = SCREENS[name]
            site.go(page, f"{screen}{'&' if '?' in screen else '?'}network={WIDE}")
            shown = page.evaluate("""
              [...document.querySelectorAll("main canvas, main img")]
                .filter((one) => one.checkVisibility() && one.clientHeight > 20)
                .map((one) => one.clientWidth / one.clientHeight)""")
            assert shown and [each for each in shown if abs(each - 4 / 3) > 0.05] == [], name
        assert page.get_by_label("Find the face in it").count() == 0

    def test_directions_are_found_in_the_page(self, site: Site) -> None:
        page = site.open(f"#directions?seed=3&network={WIDE}")
        page.get_by_role("button", name="Find them now").click()
        page.get_by_label("component 1, exact value", exact=True).fill("2")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('.command code').textContent.includes('sefa.1:+2')")
        settle(page)
        assert page.locator(".strip .tile").count() == 7
        assert page.locator("main .thumb.failed").count() == 0

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

    def test_a_lone_row_has_its_command(self, site: Site) -> None:
        """A number alone is a count on the command line; a list that is empty is as at first."""
        page = site.open("#mix?view=grid&rows=7&cols=3&styles=fine")
        assert "--row 7 --col 3 " in page.locator("main .command:visible code").text_content()
        site.go(page, "#mix?view=grid&rows=&cols=3,4")
        command = page.locator("main .command:visible code").text_content()
        assert "--row-seeds 0-2 --col-seeds 3-4 " in command

    def test_a_face_that_is_kept_again_has_a_name_at_once(self, site: Site) -> None:
        """The one that the dialog proposes can be kept, whatever the face's file is called."""
        folder = site.folder / "out" / "00000-wide-000001000" / "projected"
        folder.mkdir(parents=True, exist_ok=True)
        config = stylecli.load_network(site.folder / WIDE).config
        save_ws(folder / "me (1)+2.npz", torch.zeros(1, config.num_ws, config.w_out_dim))
        face = f"out/00000-wide-000001000/projected/me%20(1)%2B2.npz&network={WIDE}"
        page = site.open(f"#face?face={face}")
        page.get_by_role("button", name="Keep this face").click()
        dialog = page.locator("dialog[open]")
        assert dialog.get_by_label("Name").input_value() == "me -1-2"
        dialog.get_by_role("button", name="Keep").click()
        dialog.wait_for(state="detached")
        assert (folder.parent / "faces" / "me -1-2.npz").is_file()

    def test_the_last_address_wins_while_a_network_is_fetched(self, site: Site) -> None:
        """A slow network must not bring back the screen that was left before it was there."""
        page = site.open()
        held: list[Any] = []
        page.route("**/api/network?*", lambda route: held.append(route))
        page.evaluate(f"location.hash = '#face?network={WIDE}'")
        until(page, "location.hash.includes('network=')")
        page.wait_for_timeout(100)
        page.evaluate(f"location.hash = '#walk?through=1,2,5&network={WIDE}'")
        page.wait_for_timeout(100)
        assert len(held) == 1
        held[0].continue_()
        page.unroute_all()
        settle(page)
        until(page, "document.querySelectorAll('.key-faces > li').length === 3")
        page.wait_for_timeout(300)
        assert page.locator("main h1").inner_text() == "Walk"
        assert page.locator("#settings select").input_value() == WIDE

    def test_a_walk_that_is_full_says_so(self, site: Site) -> None:
        page = site.open()
        many = ",".join(map(str, range(30)))  # not all in sight, so not all are drawn
        page.evaluate(f"location.hash = '#walk?through={many}'")
        until(page, "document.querySelectorAll('.key-faces > li').length === 24")
        page.get_by_role("button", name="Another face").click()
        page.locator(".toast").filter(has_text="24 faces at most").wait_for()
        assert page.locator("dialog[open]").count() == 0

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

    def test_names_of_strangers_are_text(self, site: Site) -> None:
        page = site.open("#training")
        page.wait_for_selector(".run-title")
        assert page.locator(".run-title").inner_text() == "00001-<img src=x onerror=alert(1)>"
        assert page.locator("main img[src=x]").count() == 0

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
