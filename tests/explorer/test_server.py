"""The server behind the page: who may ask, which pictures are drawn, what a crash leaves."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from stylecli.explorer.server import MOST_UPLOADED, Explorer, listen
from tests.explorer.conftest import HERE


def test_a_taken_port_is_refused_and_the_usual_one_steps_aside() -> None:
    with listen("127.0.0.1", None) as first:
        port = first.getsockname()[1]
        with pytest.raises(Exception, match=f"port {port}"):
            listen("127.0.0.1", port)
        with listen("127.0.0.1", None, first=port) as second:
            assert second.getsockname()[1] != port


def test_a_crash_is_a_sentence_and_the_next_picture_works(client: TestClient) -> None:
    crashed, full, refused = (client.get(f"/api/picture?seed={seed}") for seed in (666, 667, 668))

    assert (crashed.status_code, full.status_code, refused.status_code) == (500, 500, 400)
    assert "exit code 9" in crashed.json()["error"]
    assert "not enough memory" in full.json()["error"]
    assert client.get("/api/picture?seed=1").text == "--seeds=1"


def drawn(client: TestClient) -> int:
    return int(client.app.state.drawer.drawn)  # type: ignore[attr-defined]


def test_what_is_known_is_not_drawn_again_until_a_file_changes(client: TestClient) -> None:
    tag = client.get("/api/picture?seed=1").headers["etag"]
    before = drawn(client)
    again = client.get("/api/picture?seed=1", headers={"if-none-match": f'"x", W/{tag}'})
    Path("net.safetensors").write_bytes(b"another network, of another size")
    changed = client.get("/api/picture?seed=1", headers={"if-none-match": tag})

    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert changed.status_code == 200 and changed.headers["etag"] != tag
    assert drawn(client) == before + 1


def test_of_a_hundred_moves_the_last_is_shown_and_stale_ones_are_never_drawn(
    explorer: Explorer,
) -> None:
    """Counted in pictures, not in time: each that was drawn was shown."""
    app = explorer.make_app()
    headers = {"x-stylecli-token": explorer.token, "x-stylecli-place": "tab1:main"}

    async def move() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE, headers=headers) as client:
            await client.get("/api/picture?seed=0")  # starts the process
            moves = []
            for number in range(100):
                moves.append(asyncio.create_task(client.get(f"/api/picture?seed={number}")))
                await asyncio.sleep(0.02)  # two seconds of a hand on a slider
            return list(await asyncio.gather(*moves))

    answers = asyncio.run(move())
    app.state.drawer.end()
    shown = [answer for answer in answers if answer.status_code == 200]
    stale = [answer for answer in answers if answer.status_code == 409]

    assert answers[-1].text == "--seeds=99"
    assert len(shown) + len(stale) == 100 and all(one.json()["superseded"] for one in stale)
    assert app.state.drawer.drawn == len(shown) + 1
    assert 3 <= len(shown) < 100


def test_places_have_their_turn_beside_each_other(explorer: Explorer) -> None:
    app = explorer.make_app()

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url=HERE, headers={"x-stylecli-token": explorer.token}
        ) as client:
            asked = [
                client.get(f"/api/picture?seed={number}", headers={"x-stylecli-place": place})
                for number, place in enumerate(("a:1", "a:2", "b:1"))
            ]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [200, 200, 200]
    app.state.drawer.end()


def wait_for(client: TestClient, job: str, *states: str) -> Any:
    for _ in range(600):
        found = client.get(f"/api/jobs/{job}").json()
        if found["state"] in states:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_a_photograph_is_projected_with_its_pictures_on_the_way(client: TestClient) -> None:
    sent = client.post("/api/photographs?name=../<img src=x>.png", content=b"a photograph")
    job = wait_for(client, sent.json()["job"], "done")
    (stored,) = Path("out").rglob("*.png")

    assert sent.status_code == 202
    assert job["result"] == {"face": "out/net/projected/me.npz"}
    assert (job["done"], job["total"], job["pictures"]) == (3, 3, 3)
    assert job["notes"] == ["<b>the face is small</b>"]  # the page shows text, never markup
    assert client.get(f"/api/jobs/{job['id']}/picture").content == b"picture 2"
    assert stored.parent == Path("out/net/photographs") and "<" not in stored.name


def test_jobs_are_cancelled_and_fail_with_their_sentence(client: TestClient) -> None:
    endless = client.post("/api/photographs?name=endless.png", content=b"x").json()["job"]
    waiting = client.post("/api/photographs?name=a.png", content=b"x").json()["job"]
    failing = client.post("/api/photographs?name=a.gif", content=b"y").json()["job"]
    wait_for(client, endless, "running")
    ended = (
        client.delete(f"/api/jobs/{waiting}").json(),
        client.delete(f"/api/jobs/{endless}").json(),
    )
    failed = wait_for(client, failing, "failed")

    assert [job["state"] for job in ended] == ["cancelled", "cancelled"]
    assert failed["error"] == "this job is refused"
    assert client.delete(f"/api/jobs/{endless}").status_code == 400


def test_every_walk_has_a_file_of_its_own(client: TestClient) -> None:
    """The next one takes nothing away from a job that ended: its download stays what it was."""
    states = ({"through": ["1", "2"]}, {"through": ["1", "2"], "method": "lerp"})
    begun = [client.post("/api/walk/export", json={"state": state}).json() for state in states]
    files = {wait_for(client, one["job"], "done")["result"]["path"] for one in begun}

    assert len(files) == 2 and all(path.startswith("out/net/walks/") for path in files)
    for one in begun:
        words, _, out = one["command"].partition(" --out ")
        assert client.get(f"/api/jobs/{one['job']}/files/0").text == words
        assert f"{out}/interpolation.mp4" in files
    frames = client.post("/api/walk/export", json={"state": states[0], "format": "png"})
    assert frames.status_code == 400 and "png" in frames.json()["error"]


UPLOADS = (
    ("name=net.pkl", b"x", 400), ("name=a.safetensors", b"x", 400), ("name=a.npz", b"x", 400),
    ("name=a.svg", b"<svg/>", 400), ("name=a.png", b"", 400),
    ("name=a.png", b"x" * (MOST_UPLOADED + 1), 413), ("network=../net&name=a.png", b"x", 404),
)  # fmt: skip


@pytest.mark.parametrize(("query", "content", "status"), UPLOADS, ids=[row[0] for row in UPLOADS])
def test_what_is_no_photograph_is_not_taken(
    query: str, content: bytes, status: int, client: TestClient
) -> None:
    assert client.post(f"/api/photographs?{query}", content=content).status_code == status
    assert not Path("out").exists()


def test_a_body_of_unknown_length_is_cut_off_too(client: TestClient) -> None:
    parts = (b"x" * (1 << 20) for _ in range((MOST_UPLOADED >> 20) + 1))

    assert client.post("/api/photographs?name=a.png", content=parts).status_code == 413


def test_it_ends_within_a_second_whatever_is_drawn(explorer: Explorer) -> None:
    with TestClient(explorer.make_app(), HERE, headers={"x-stylecli-token": explorer.token}) as it:
        endless = it.post("/api/photographs?name=endless.png", content=b"x").json()["job"]
        it.get("/api/picture?seed=1")
        wait_for(it, endless, "running")
        processes = [*it.app.state.jobs._processes.values(), it.app.state.drawer._process]  # type: ignore[attr-defined]
        children = [process._child for process in processes]
        began = time.monotonic()

    assert time.monotonic() - began < 2
    assert len(children) == 2 and all(child.poll() is not None for child in children)
