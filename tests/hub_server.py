"""A stand-in for the hub on the loopback address: the calls that ``huggingface_hub`` makes for us.

Large files are sent by redirection to another server, as the hub does it. What is asked of both is
written down; what goes wrong is asked for by the test.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WRITER, READER = "hf_writersecret", "hf_readersecret"


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    regular: set[str] = field(default_factory=set)  # not large ones
    private: bool = False
    version: int = 1
    stated: dict[str, dict[str, Any]] = field(default_factory=dict)  # lies about files

    @property
    def commit(self) -> str:
        return hashlib.sha1(f"{self.version}".encode()).hexdigest()


class StandIn:
    """The hub: repositories by ``models/owner/name``, and what it is to do wrong."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}  # large files, by SHA-256
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, authorization
        self.cut_after: list[int] = []  # bytes after which the next downloads break off
        self.refuse_uploads: list[int] = []  # statuses of the next uploads
        self.spoil = False  # send other bytes than stated
        self.endless = False
        self.address = ""
        self.elsewhere = ""  # where large files are

    def add(self, name: str, files: dict[str, bytes], **more: Any) -> Repository:
        self.repositories[name] = Repository(files, **more)
        self.stored |= {hashlib.sha256(content).hexdigest(): content for content in files.values()}
        return self.repositories[name]


def blob_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value or {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def note(self) -> str | None:
        authorization = self.headers.get("Authorization")
        self.hub.asked.append((self.command, self.path, authorization))
        return authorization

    def repository(self, kind: str, name: str, token: str | None) -> Repository | None:
        found = self.hub.repositories.get(f"{kind}/{name}")
        if found is None or (found.private and not token):
            self.answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def do_GET(self) -> None:
        token = self.note()
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if found := self.repository(match[1], match[2], token):
                if match[3] not in (None, "main", found.commit):
                    self.answer(404, None, {"X-Error-Code": "RevisionNotFound"})
                else:
                    self.answer(200, self.described(match[2], found))
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            kind = "datasets" if match[1] else "models"
            if found := self.repository(kind, match[2], token):
                content = found.files[match[4]]
                if match[4] in found.regular:
                    self.send_part(content)
                else:
                    digest = hashlib.sha256(content).hexdigest()
                    self.answer(302, None, {"Location": f"{self.hub.elsewhere}/cdn/{digest}"})
        elif match := re.fullmatch(r"/cdn/(\w+)", path):
            self.send_part(self.hub.stored[match[1]])
        else:
            self.answer(404)

    def described(self, name: str, found: Repository) -> dict[str, Any]:
        siblings = []
        for file, content in found.files.items():
            row: dict[str, Any] = {
                "rfilename": file,
                "size": len(content),
                "blobId": blob_id(content),
            }
            if file not in found.regular:
                digest = hashlib.sha256(content).hexdigest()
                row["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 130}
            siblings.append(row | found.stated.get(file, {}))
        return {"id": name, "sha": found.commit, "private": found.private, "siblings": siblings}

    def send_part(self, content: bytes) -> None:
        if self.hub.spoil:
            content = content[:-1] + bytes([content[-1] ^ 1])
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(match[1]) if match else 0
        rest = content[start:]
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.hub.endless:
            self.end_headers()
            self.wfile.write(content + bytes(3 << 20))
            self.close_connection = True
            return
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.hub.cut_after:
            rest = rest[: self.hub.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(rest)

    def do_POST(self) -> None:
        token, body = self.note(), self.body()
        if self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            self.answer(200)
        elif token != f"Bearer {WRITER}":
            self.answer(403 if token == f"Bearer {READER}" else 401, {"error": "Forbidden"})
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif match := re.fullmatch(r"/api/(\w+)/([^/]+/[^/]+)/preupload/main", self.path):
            found = self.hub.repositories[f"{match[1]}/{match[2]}"]
            self.answer(200, {"files": [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "regular" if file["path"].endswith(".md") else "lfs",
                 "oid": self.known(found, file["path"])}
                for file in json.loads(body)["files"]
            ]})  # fmt: skip
        elif self.path.endswith("/info/lfs/objects/batch"):
            self.answer(200, {"objects": [self.action(one) for one in json.loads(body)["objects"]]})
        elif match := re.fullmatch(r"/api/(\w+)/([^/]+/[^/]+)/commit/main", self.path):
            self.commit(match[1], match[2], body)
        else:
            self.answer(404)

    def create(self, asked: dict[str, Any]) -> None:
        kind = f"{asked.get('type') or 'model'}s"
        name = f"{kind}/{asked['organization']}/{asked['name']}"
        place = {"url": f"{self.hub.address}/{asked['organization']}/{asked['name']}"}
        if name in self.hub.repositories:
            self.answer(409, place)
            return
        private = (
            asked.get("visibility") == "private" or asked.get("private") is True
        )  # as 1.0 says it
        self.hub.repositories[name] = Repository(private=private)
        self.answer(200, place)

    def known(self, found: Repository, file: str) -> str | None:
        if (content := found.files.get(file)) is None:
            return None
        return blob_id(content) if file.endswith(".md") else hashlib.sha256(content).hexdigest()

    def action(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.hub.stored:
            return one
        return {**one, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}}

    def do_PUT(self) -> None:
        self.note()
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        content = self.chunks() if chunked else self.body()
        if self.hub.refuse_uploads:
            self.answer(self.hub.refuse_uploads.pop(0))
            return
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.hub.stored[self.path.rpartition("/")[2]] = content
        self.answer(200)

    def chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def commit(self, kind: str, name: str, body: bytes) -> None:
        found = self.hub.repositories[f"{kind}/{name}"]
        for row in map(json.loads, body.splitlines()):
            value = row["value"]
            if row["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
                found.regular.add(value["path"])
            elif row["key"] == "lfsFile":
                found.files[value["path"]] = self.hub.stored[value["oid"]]
        found.version += 1
        page = f"{self.hub.address}/{'datasets/' * (kind == 'datasets')}{name}"
        place = f"{page}/commit/{found.commit}"
        self.answer(200, {"commitUrl": place, "commitOid": found.commit})


@contextmanager
def stand_in(monkeypatch: Any, token: str | None = None) -> Iterator[StandIn]:
    """Serve a hub, and let this process, with its token, find no other."""
    from huggingface_hub import constants

    hub = StandIn()
    handler = type("Handler", (Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.address, hub.elsewhere = (f"http://127.0.0.1:{each.server_address[1]}" for each in servers)
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)  # read from the environment, but once
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    quick = {"poll_interval": 0.01}
    threads = [threading.Thread(target=each.serve_forever, kwargs=quick) for each in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
