"""The page in a real browser: the slider moves, charts are read off, nothing is refused."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from stylecli.report.run_facts import read_facts
from stylecli.report.run_page import write_run_report
from tests.report.made_runs import make_run

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# Acts on the page as a reader would and writes down what there is to see then.
DRIVER = """
<script>
addEventListener("load", () => {
  const figure = document.querySelector(".slides");
  const slider = figure.querySelector("input");
  const slides = [...figure.querySelectorAll("li")];
  const look = () => ({
    said: figure.querySelector("output").value,
    visible: slides.map((slide) => getComputedStyle(slide).display !== "none"),
  });
  const seen = { first: look() };
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
  seen.moved = look();
  const chart = document.querySelector("svg.chart");
  const box = chart.getBoundingClientRect();
  chart.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + box.width / 2, clientY: box.top + box.height / 2,
  }));
  seen.head = chart.closest("figure").querySelector(".chart-head").textContent;
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
});
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 500])  # the narrowest it makes
def test_the_page_can_be_used(tmp_path: Path, width: int) -> None:
    run = make_run(tmp_path / "a", sheets=3)
    page = tmp_path / "page.html"
    write_run_report(page, read_facts(run))
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", DRIVER), encoding="utf-8")

    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    seen = json.loads(unescape(found[1]))
    assert seen["first"] == {"said": "60 kimg · 32 px", "visible": [False, False, True]}
    assert seen["moved"] == {"said": "0 kimg · 8 px", "visible": [True, False, False]}
    assert re.fullmatch(r"Losses at [\d.]+ kimggenerator 2\.?\d*discriminator 0\.5", seen["head"])
    assert seen["overflow"] <= 0
    assert "CONSOLE" not in done.stderr
