"""Ask a running `stylecli explore` for thousands of pictures, and drag a slider of its page.

    PYTHONPATH=. python tests/benchmarks/explore_soak.py --requests 10000 --drags 5

Starts the server on the shipped network in a temporary folder, and prints the processor time of the
first picture, beyond that of `import torch`, and of each of the next.

Drags: Chromium moves the slider of psi 100 times in 2 s. Prints how many pictures were shown, and
for how many there was time, at what processor time of the server, beside that of as many which are
asked for one by one, before and after. Exits with 1 where the last state is not the one shown, or
where in the median they cost more than 1.2 times as much, or were less than 0.7 times as many.

Soak: asks over one connection, as the page does, for pictures of new seeds, psi, noise and mixes,
frames of walks, sheets, lists and wrong states, in turn. Prints the memory of the server and of the
process that draws, in RAM and swapped out, after a tenth of the requests and at the end. Exits with
1 where it grew by more than a tenth. Reads /proc, so it needs Linux.
"""

import argparse
import contextlib
import http.client
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_GROWTH = 0.10
MOST_COST, LEAST_SHOWN = 1.2, 0.7
MOVES, DRAG_SECONDS = 100, 2.0
ALONE = 20  # pictures that are asked for one by one, before each drag and after it

# Counts the pictures that the page shows, moves the slider, and waits until the hand is at rest.
DRAG = """async ([moves, seconds]) => {
  const image = document.querySelector(".frame > img");
  const slider = document.querySelector("input[type=range][max='1.5']");
  const asked = () => performance.getEntriesByType("resource")
    .map((one) => one.name).filter((name) => name.includes("/api/picture?"));
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  performance.clearResourceTimings();
  let shown = 0;
  const start = performance.now();
  const observer = new MutationObserver(() => { shown += 1; });
  observer.observe(image, { attributeFilter: ["src"] });
  for (let move = 1; move <= moves; move += 1) {
    const due = start + (1000 * seconds * move) / moves;
    await wait(Math.max(0, due - performance.now()));
    slider.value = move / moves;
    slider.dispatchEvent(new Event("input"));
  }
  const [took, meanwhile] = [(performance.now() - start) / 1000, shown];
  slider.dispatchEvent(new Event("change"));
  while (document.querySelector(".waiting")) await wait(10);
  observer.disconnect();
  return { shown, meanwhile, took, last: asked().at(-1) };
}"""


def held_mib(process: int) -> float:
    """Return the memory of a process, in RAM or swapped out, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.startswith(("VmRSS:", "VmSwap:"))]
    return sum(int(row[1]) for row in rows) / 1024


def cpu_seconds(process: int) -> float:
    """Return the processor time that a process has taken."""
    words = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def children_of(process: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text(encoding="ascii").split()]


@dataclass
class Served:
    """A running server, and a client of it."""

    server: "subprocess.Popen[str]"
    port: int
    token: str

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, path: str) -> int:
        """Return the status of an answer, which is read to its end."""
        self.connection.request("GET", path, headers={"X-Stylecli-Token": self.token})
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def figures(self) -> dict[str, tuple[float, float]]:
        """Return memory in MiB and processor seconds of the server and of what draws."""
        (drawing,) = children_of(self.server.pid)
        processes = {"server": self.server.pid, "drawing": drawing}
        return {name: (held_mib(each), cpu_seconds(each)) for name, each in processes.items()}

    def spent(self) -> float:
        """Return the processor time of both."""
        return sum(spent for _, spent in self.figures().values())


@contextlib.contextmanager
def served() -> Iterator[Served]:
    """Serve the shipped network from an empty folder."""
    words = ["explore", "--network", "shipped", "--no-open", "--json", "--quiet", "--device", "cpu"]
    with tempfile.TemporaryDirectory(prefix="explore-soak-") as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "stylecli", *words],
            cwd=folder, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            text = ""
            while not text.endswith("}\n"):
                text += server.stdout.readline()
            said = json.loads(text)
            yield Served(server, said["port"], said["token"])
        finally:
            server.send_signal(signal.SIGINT)
            code = server.wait(10)
    if code:
        sys.exit(f"exit code of the server: {code}")


def first_picture(site: Served) -> None:
    """Print what the first picture costs beyond loading torch, and the next ones."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    torch = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    site.ask("/api/picture?seed=0")
    first = site.figures()["drawing"][1]
    print(f"first picture: {first:.2f} CPU-s with torch, whose import alone takes {torch:.2f}")
    each, _ = alone(site, 0, 100)
    print(f"a picture: {1000 * each:.1f} CPU-ms, by the server and what draws")


def alone(site: Served, offset: int, count: int) -> tuple[float, float]:
    """Return processor and wall seconds of a picture that is asked for by itself."""
    site.connection.close()  # which the server does after some seconds without a request
    spent, began = site.spent(), time.perf_counter()
    for number in range(count):
        site.ask(f"/api/picture?seed=4&psi={(offset + number) / 100_000:.5f}")
    return (site.spent() - spent) / count, (time.perf_counter() - began) / count


def drag(site: Served, drags: int) -> bool:
    """Drag the slider and print what came of it; return whether all is as it should be."""
    from playwright.sync_api import sync_playwright

    from tests.browser import BROWSER
    from tests.explorer.test_in_browser import settle

    rows: list[tuple[float, float]] = []
    latest = True
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page: Any = browser.new_page()
        page.goto(f"http://127.0.0.1:{site.port}/#token={site.token}")
        page.wait_for_selector("h1")
        print("moved in  shown  time for  CPU of the server  of as many alone")
        for number in range(drags):
            page.evaluate("seed => { location.hash = `#face?seed=${seed}`; }", number)
            settle(page)
            around = [alone(site, 100 * number, ALONE)]
            spent = site.spent()
            told = page.evaluate(DRAG, [MOVES, DRAG_SECONDS])
            spent = site.spent() - spent
            around.append(alone(site, 100 * number + ALONE, ALONE))
            each, seconds = (statistics.mean(column) for column in zip(*around, strict=True))
            room = told["took"] / seconds
            print(f"{told['took']:6.2f} s  {told['meanwhile']:5}  {room:8.1f}  {spent:15.2f} s  "
                  f"{told['shown'] * each:14.2f} s")  # fmt: skip
            latest = latest and told["last"].endswith(f"?psi=1&seed={number}")
            rows.append((spent / (told["shown"] * each), told["meanwhile"] / room))
        browser.close()
    cost, share = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"medians: {cost:.2f} times the cost of pictures alone, {share:.2f} of what time allowed")
    print(f"the last state was {'shown' if latest else 'NOT shown'}")
    return latest and cost <= MOST_COST and share >= LEAST_SHOWN


def address(number: int) -> str:
    """Return what the request of a number asks for; no two states are the same."""
    kinds = (
        f"/api/picture?seed={number}&psi={number % 150 / 100}",
        f"/api/picture?seed={number}&noise_seed={number}&noise_scale=0.5",
        f"/api/picture?seed={number}&mix=coarse:{number + 1}&mix=fine:{number + 2}",
        f"/api/command?seed={number}",
        f"/api/walk/frame?through={number}&through={number + 1}&frame={number % 60}",
        f"/api/picture?seed={number}&psi=nothing",
        "/api/networks",
        f"/api/sheet?seeds={number}-{number + 3}" if number % 5 == 0 else "/api/faces",
        f"/api/picture?seed={number}&network=nowhere",
    )
    return kinds[number % len(kinds)]


def soak(site: Served, count: int) -> bool:
    """Ask for everything in turn; return whether memory stays and statuses are as expected."""
    statuses: Counter[int] = Counter()
    early = site.figures()
    tenth = max(1, count // 10)
    slowest, began = 0.0, time.perf_counter()
    for number in range(count):
        start = time.perf_counter()
        statuses[site.ask(address(number))] += 1
        slowest = max(slowest, time.perf_counter() - start)
        if number + 1 == tenth:
            early = site.figures()
    seconds, late = time.perf_counter() - began, site.figures()
    print(f"{count:,} requests in {seconds:.0f} s, the slowest {1000 * slowest:.0f} ms")
    told = (f"{status}: {times:,}" for status, times in sorted(statuses.items()))
    print("statuses:", ", ".join(told))
    print("process   after a tenth  at the end  CPU of a request in between")
    for name, (held, spent) in early.items():
        each = 1000 * (late[name][1] - spent) / max(1, count - tenth)
        print(f"{name:8}  {held:9.1f} MiB  {late[name][0]:6.1f} MiB  {each:.1f} ms")
    grown = [name for name in early if late[name][0] > early[name][0] * (1 + MOST_GROWTH)]
    if grown:
        print(f"memory grew: {grown}")
    return not grown and not set(statuses) - {200, 400, 404}


def main() -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--drags", type=int, default=5)
    given = parser.parse_args()
    with served() as site:
        first_picture(site)
        good = not given.drags or drag(site, given.drags)
        good = (not given.requests or soak(site, given.requests)) and good
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
