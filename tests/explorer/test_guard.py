"""Who may ask the server, as a table; what every answer forbids."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from stylecli.explorer.guard import is_own_host
from stylecli.explorer.server import Explorer
from tests.explorer.conftest import HERE, start_plain

WHO = (  # what a request says of itself, and whether it is answered
    ("the page", {"origin": HERE, "sec-fetch-site": "same-origin"}, 200),
    ("curl", {}, 200),
    ("over ssh", {"host": "localhost:9000"}, 200),
    ("another page", {"origin": "http://evil.example"}, 403),
    ("another port", {"origin": "http://127.0.0.1:9999"}, 403),
    ("a file", {"origin": "null"}, 403),
    ("an image of another page", {"sec-fetch-site": "cross-site"}, 403),
    ("a rebound name", {"host": "evil.example"}, 403),
    ("a rebound name with a port", {"host": "evil.example:8765"}, 403),
    ("a name that begins like ours", {"host": "127.0.0.1.evil.example"}, 403),
    ("a name of userinfo", {"host": "127.0.0.1@evil.example"}, 403),
    ("no host", {"host": ""}, 403),
    ("no token", {"x-stylecli-token": ""}, 401),
    ("another token", {"x-stylecli-token": "0" * 32}, 401),
    ("letters in the token", {"x-stylecli-token": "é".encode("latin-1")}, 401),
)


@pytest.mark.parametrize(("who", "headers", "status"), WHO, ids=[row[0] for row in WHO])
def test_who_may_ask(who: str, headers: dict[str, Any], status: int, client: TestClient) -> None:
    answer = client.get("/api/networks", headers=headers)

    assert answer.status_code == status, answer.text
    assert (status == 200) == ("net.safetensors" in answer.text)


def test_every_answer_is_closed_to_other_pages(client: TestClient) -> None:
    for path in ("/", "/page/main.js", "/api/networks", "/api/picture?seed=1", "/nothing"):
        for headers in ({}, {"host": "evil.example"}):
            answer = client.get(path, headers=headers)
            policy = answer.headers["content-security-policy"]

            assert (
                "default-src 'none'" in policy
                and "trusted-types" in policy
                and "frame-ancestors 'none'" in policy
            )
            assert "unsafe" not in policy and "*" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert "set-cookie" not in answer.headers
    assert client.options("/api/networks").status_code in (403, 405)


def test_a_notebook_alone_may_frame_the_page(explorer: Explorer) -> None:
    framed = Explorer(start_plain, explorer.workplace, framed=True)
    with TestClient(framed.make_app(), HERE) as client:
        policy = client.get("/nothing").headers["content-security-policy"]

    assert policy.partition("frame-ancestors ")[2].split()[0] == "http://localhost:*"


HOSTS = (
    ("127.0.0.1:8765", "127.0.0.1", True), ("[::1]:80", "::1", True),
    ("localhost", "0.0.0.0", True),
    ("192.168.1.7:8765", "0.0.0.0", True), ("192.168.1.7:8765", "127.0.0.1", False),
    ("evil.example", "0.0.0.0", False), ("lab-7", "lab-7", True), ("LAB-7:1", "lab-7", True),
    ("localhost:8765:1", "127.0.0.1", False), ("localhost/", "127.0.0.1", False),
    ("127.0.0.1 evil", "127.0.0.1", False), ("localhost.", "127.0.0.1", True),
)  # fmt: skip


@pytest.mark.parametrize(("header", "host", "own"), HOSTS)
def test_hosts_that_are_ones_own(header: str, host: str, own: bool) -> None:
    assert is_own_host(header, host) is own
