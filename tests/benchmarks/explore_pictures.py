"""Draw the pictures of docs/explore.md again, for another network that comes with stylecli.

    PYTHONPATH=. python tests/benchmarks/explore_pictures.py docs/images/explore

Starts `stylecli explore` in a temporary folder, opens every screen in Chromium, and writes a WebP
of each. Needs playwright and Chromium, as the tests of the page do. Look at what comes of it.
"""

import argparse
import io
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser import BROWSER
from tests.explorer.test_in_browser import Site, settle

SCREENS = {
    "face": "#face?seed=3",
    "mix": "#mix?faces=3,7,5&take=coarse:1,fine:2",
    "figure3": "#mix?view=grid",
    "walk": "#walk?through=3,7,5,12,8&frame=20",
    "directions": "#directions?seed=3&edit=smile:2&strip=smile",
    "sheet": "#sheet?count=60&keep=2,9,13",
    "phone": "#face?seed=3",
}
WINDOW, SHOWN, PHONE = (1280, 800), (1024, 640), (390, 844)


def photograph(site: Site, name: str, target: Path) -> None:
    """Write what a screen looks like."""
    size, shown = (PHONE, PHONE) if name == "phone" else (WINDOW, SHOWN)
    page = site.open(SCREENS[name], *size)
    page.wait_for_timeout(800)
    settle(page)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        small = picture.convert("RGB").resize(shown, Image.Resampling.LANCZOS)
    small.save(target, quality=78, method=6)
    print(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "stylecli", "explore", "--network", "shipped", "--no-open"],
            cwd=folder, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            address, _, token = server.stdout.readline().strip().partition("/#token=")
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
                site = Site(address, token, Path(folder), browser)
                for name in SCREENS:
                    photograph(site, name, out / f"{name}.webp")
                browser.close()
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=20)
    if site.complaints:
        sys.exit(f"the page complained: {site.complaints}")


if __name__ == "__main__":
    main()
