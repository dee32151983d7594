"""The server behind the page: who may ask, what is answered, and how it begins and ends.

It listens on this machine alone unless told otherwise. Everything under ``/api/`` needs the token
of the printed address, in a header, which no page of another origin can send.
"""

import asyncio
import contextlib
import functools
import hashlib
import mimetypes
import os
import re
import secrets
import shlex
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from stylecli import __version__
from stylecli.errors import ExitCode, StyleCLIError, UsageError, explain, plural
from stylecli.explorer.drawing import (
    Drawer,
    Job,
    Jobs,
    Start,
    SupersededError,
    TooBusyError,
)
from stylecli.explorer.guard import Guard, answer_error, answer_json
from stylecli.explorer.states import Kind, NotListedError, command_words, find_kind
from stylecli.explorer.workplace import Workplace, file_state
from stylecli.files import parse_json, write_bytes
from stylecli.latents.directions import FILE as DIRECTIONS
from stylecli.workspace import folder_of, sweep_leftovers

PLACE_HEADER = "x-stylecli-place"
MOST_UPLOADED = 64 << 20  # bytes of a photograph
_MOST_JSON = 1 << 20
_PAGE = Path(__file__).parent / "page"
_REPORT = Path(__file__).parents[1] / "report"
_PAGE_KINDS = (".html", ".css", ".js", ".svg", ".json", ".png", ".woff2")
_OF_REPORT = {"report.css": "page.css", "report.js": "page.js"}
_PHOTOGRAPHS = (
    ".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp", ".gif",
)  # fmt: skip
_PLACE = re.compile(r"[\w.:-]{1,80}")
_ODD = re.compile(r"[^\w.-]+")
_STATUS = {
    ExitCode.FAILED: 500, ExitCode.USAGE: 400, ExitCode.UNUSABLE: 422, ExitCode.NO_DEVICE: 503,
}  # fmt: skip
_END_SECONDS = 1


@dataclass(frozen=True)
class Explorer:
    """What the server needs: how drawing processes start, and what of this folder is shown."""

    start: Start
    workplace: Workplace = field(default_factory=Workplace)
    device: str = "auto"
    host: str = "127.0.0.1"
    framed: bool = False  # by a notebook
    early: bool = False  # the process that draws starts before it is asked for a picture
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def make_app(self) -> Starlette:
        """Return the application, with its processes: they start at the first picture."""
        drawer, jobs = Drawer(self.start), Jobs(self.start)
        answers = _Answers(self, drawer, jobs)

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            opening = asyncio.create_task(answers.open_early()) if self.early else None
            yield
            if opening is not None:
                opening.cancel()
            drawer.end()
            jobs.end()

        app = Starlette(
            routes=answers.routes(), lifespan=lifespan,
            exception_handlers={HTTPException: _explain_status, Exception: _explain_error},
        )  # fmt: skip
        app.state.drawer, app.state.jobs = drawer, jobs
        app.add_middleware(Guard, token=self.token, host=self.host, framed=self.framed)
        return app


async def _explain_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: f"there is nothing at {request.url.path[:200]}",
             405: f"{request.url.path[:200]} does not take {request.method}"}  # fmt: skip
    return answer_error(texts.get(error.status_code, error.detail), error.status_code)


async def _explain_error(request: Request, error: Exception) -> Response:
    return _explain(error)


def _explain(error: BaseException) -> Response:
    """Return any error as a sentence with its status."""
    if isinstance(error, SupersededError | ClientDisconnect):
        return answer_json({"superseded": True, "error": "a newer picture was asked for"}, 409)
    if isinstance(error, TooBusyError):
        return answer_error(str(error), 429)
    if isinstance(error, NotListedError):
        return answer_error(str(error), 404)
    if isinstance(error, _TooLargeError):
        return answer_error(str(error), 413)
    text, code = explain(error)
    return answer_error(text, _STATUS.get(code, 500))


class _TooLargeError(StyleCLIError):
    """A request has more bytes than are read."""


Endpoint = Callable[[Request], Awaitable[Response]]


def _explained(endpoint: Endpoint) -> Endpoint:
    """Turn every error of an address into its sentence."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except HTTPException:
            raise
        except Exception as error:
            return _explain(error)

    return answer


class _Answers:
    """What every address answers."""

    def __init__(self, explorer: Explorer, drawer: Drawer, jobs: Jobs) -> None:
        self.workplace, self.device = explorer.workplace, explorer.device
        self.drawer, self.jobs = drawer, jobs

    def routes(self) -> list[Route]:
        """Return the addresses; docs/explore.md describes them."""
        table: Sequence[tuple[str, str, Endpoint]] = (
            ("GET", "/", self.page),
            ("GET", "/page/{name}", self.page),
            ("GET", "/api/networks", self.networks),
            ("GET", "/api/network", self.network),
            ("GET", "/api/faces", self.faces),
            ("POST", "/api/faces", self.keep_face),
            ("GET", "/api/directions", functools.partial(self.directions, "directions")),
            ("POST", "/api/directions", functools.partial(self.directions, "find")),
            ("GET", "/api/picture", functools.partial(self.picture, "picture")),
            ("GET", "/api/sheet", functools.partial(self.picture, "sheet")),
            ("GET", "/api/mix", functools.partial(self.picture, "mix")),
            ("GET", "/api/preview", functools.partial(self.picture, "preview")),
            ("GET", "/api/command", self.command),
            ("GET", "/api/walk", self.walk),
            ("GET", "/api/walk/frame", functools.partial(self.picture, "walk")),
            ("POST", "/api/walk/export", self.export_walk),
            ("POST", "/api/photographs", self.project),
            ("GET", "/api/jobs", self.list_jobs),
            ("GET", "/api/jobs/{job}", self.job),
            ("DELETE", "/api/jobs/{job}", self.cancel_job),
            ("GET", "/api/jobs/{job}/picture", self.job_picture),
            ("GET", "/api/jobs/{job}/files/{number:int}", self.job_file),
            ("GET", "/api/runs", self.runs),
            ("GET", "/api/run", self.run),
            ("GET", "/api/run/sheet", self.run_sheet),
        )
        return [
            Route(path, _explained(endpoint), methods=[method]) for method, path, endpoint in table
        ]

    async def open_early(self) -> None:
        """Have the process that draws load the chosen network; what fails is said when asked."""
        with contextlib.suppress(StyleCLIError, OSError):
            await self.drawer.ask(self._request("network", self.workplace.chosen))

    # -- the page ---------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """Answer a file of the page."""
        name = request.path_params.get("name", "index.html")
        path = _REPORT / _OF_REPORT[name] if name in _OF_REPORT else _PAGE / name
        if name not in _OF_REPORT and (
            path.suffix not in _PAGE_KINDS or name not in _names_in(_PAGE)
        ):
            raise HTTPException(404)
        kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(name)[0]
        return Response(path.read_bytes(), 200, {"cache-control": "no-cache"}, kind)

    # -- lists ------------------------------------------------------------------------------

    async def networks(self, request: Request) -> Response:
        """Answer the networks of this folder, or of one run."""
        run = request.query_params.get("run", "")
        return answer_json(await asyncio.to_thread(self.workplace.list_networks, run))

    async def network(self, request: Request) -> Response:
        """Answer what a network is and can do."""
        path = self.workplace.find_network(request.query_params.get("network", ""))
        facts, _ = await self.drawer.ask(self._request("network", path))
        return answer_json(facts)

    async def faces(self, request: Request) -> Response:
        """Answer the faces of a network."""
        path = self.workplace.find_network(request.query_params.get("network", ""))
        return answer_json(self.workplace.list_faces(path))

    async def directions(self, what: str, request: Request) -> Response:
        """Answer the directions in which faces of a network can be edited; find some first."""
        path = self.workplace.find_network(request.query_params.get("network", ""))
        facts, _ = await self.drawer.ask(self._request(what, path))
        return answer_json(facts)

    async def runs(self, request: Request) -> Response:
        """Answer the runs of this folder."""
        return answer_json(await asyncio.to_thread(self.workplace.list_runs))

    async def run(self, request: Request) -> Response:
        """Answer a run: curves, events, sheets."""
        name = request.query_params.get("run", "")
        tag = f'"{await asyncio.to_thread(self.workplace.run_state, name)}"'
        if _knows(request, tag):
            return _unchanged(tag)
        facts = await asyncio.to_thread(self.workplace.describe_run, name)
        return answer_json(facts, headers={"etag": tag, "cache-control": "no-cache"})

    async def run_sheet(self, request: Request) -> Response:
        """Answer a sample sheet of a run."""
        query = request.query_params
        path = self.workplace.find_sheet(query.get("run", ""), query.get("nimg", ""))
        return Response(path.read_bytes(), 200, media_type="image/png")

    # -- pictures ---------------------------------------------------------------------------

    async def picture(self, what: str, request: Request) -> Response:
        """Answer a picture of a state, unless whoever asks has it already."""
        state = list(request.query_params.multi_items())
        frame = _taken(state, "frame") if what == "walk" else ""
        ask, tag = self._asked(what, state, frame)
        if _knows(request, tag):
            return _unchanged(tag)
        place = request.headers.get(PLACE_HEADER, "")
        if place and not _PLACE.fullmatch(place):
            raise UsageError(f"place {place[:80]!r} is not 1 to 80 letters, digits, . : - or _")
        facts, content = await self.drawer.ask(ask, place, request.is_disconnected)
        if not content:
            raise NotListedError("this network has no true small picture: ask for the picture")
        headers = {"etag": tag, "cache-control": "no-cache"}
        return Response(content, 200, headers, str(facts.get("type", "image/png")))

    async def command(self, request: Request) -> Response:
        """Answer the command line that makes the same file."""
        state = list(request.query_params.multi_items())
        ask, _ = self._asked(_taken(state, "kind") or "picture", state)
        facts, _ = await self.drawer.ask({**ask, "do": "command"})
        return answer_json(facts)

    async def walk(self, request: Request) -> Response:
        """Answer how long a walk is."""
        ask, _ = self._asked("walk", list(request.query_params.multi_items()))
        facts, _ = await self.drawer.ask({**ask, "do": "measure"})
        return answer_json(facts)

    def _asked(self, what: str, state: list[tuple[str, str]], frame: str = "") -> tuple[
        dict[str, Any], str
    ]:  # fmt: skip
        """Return the request for a picture, and a tag that changes whenever the picture may."""
        kind = find_kind("picture" if what == "preview" else what)
        network, words, faces = self._read(kind, state)
        own = folder_of(network) / DIRECTIONS
        files = [file_state(path) for path in (network, own, *faces.values())]
        ask = self._request(what, network, words=words, command=kind.command, frame=frame)
        text = repr((__version__, what, words, frame, self.device, files))
        return ask, f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'

    def _read(
        self, kind: Kind, state: list[tuple[str, str]]
    ) -> tuple[Path, list[str], dict[str, Path]]:
        """Return the network and the words of a state, and the faces that it could name."""
        network = self.workplace.find_network(_taken(state, "network"))
        faces = self.workplace.faces(network)
        return network, command_words(kind, state, faces), faces

    def _request(self, what: str, network: Path, **more: Any) -> dict[str, Any]:
        return {"do": what, "network": str(network), "device": self.device, **more}

    # -- work -------------------------------------------------------------------------------

    async def keep_face(self, request: Request) -> Response:
        """Keep the styles of a state as a file."""
        asked = await _read_json(request)
        state = _pairs(asked.get("state"))
        network, words, _ = self._read(find_kind("picture"), state)
        path = self.workplace.kept_face(network, str(asked.get("name", "")))
        if path.exists():
            raise UsageError(f"a face is called {path.stem} already: give another name")
        await self.drawer.ask(
            self._request("keep", network, words=words, command="generate", path=str(path))
        )
        names = {each: name for name, each in self.workplace.faces(network).items()}
        return answer_json({"face": names[path]}, 201)

    async def export_walk(self, request: Request) -> Response:
        """Begin to write the video of a walk, into a folder of its own: others stay."""
        asked = await _read_json(request)
        state = _pairs(asked.get("state"))
        if asked.get("format"):
            state.append(("format", str(asked["format"])))
        if ("format", "png") in state:
            raise UsageError("format png is a folder of frames, no file: run the printed command")
        ask, tag = self._asked("walk", state)
        folder = folder_of(Path(ask["network"])) / "walks" / tag.strip('"')[:8]
        facts, _ = await self.drawer.ask({**ask, "do": "command"})
        line = f"{facts['command']} --out {shlex.quote(folder.as_posix())}"
        job = self.jobs.begin(Job("walk", "walk", {**ask, "do": "export", "out": str(folder)}))
        return answer_json({"job": job.id, "command": line}, 202)

    async def project(self, request: Request) -> Response:
        """Take a photograph, and begin to look for its styles."""
        query = request.query_params
        network = self.workplace.find_network(query.get("network", ""))
        name = query.get("name", "photograph.png")
        suffix = Path(name).suffix.lower()
        if suffix not in _PHOTOGRAPHS:
            raise UsageError(
                f"{name[:80]!r} is no photograph: expected a name that ends in "
                f"{', '.join(_PHOTOGRAPHS)}"
            )
        content = await _read_body(request, MOST_UPLOADED)
        digest = hashlib.sha256(content).hexdigest()[:8]
        stem = _ODD.sub("-", Path(name).stem)[:40].strip(".-") or "photograph"
        path = folder_of(network) / "photographs" / f"{stem}-{digest}{suffix}"
        if not path.exists():
            await asyncio.to_thread(write_bytes, path, content)
        align = query.get("align", "yes") not in ("no", "false", "0")
        ask = self._request("project", network, photo=str(path), align=align, name=name[:200])
        job = self.jobs.begin(Job("photograph", name[:200], ask))
        return answer_json({"job": job.id}, 202)

    async def list_jobs(self, request: Request) -> Response:
        """Answer all jobs, the oldest first."""
        return answer_json({"jobs": [_describe_job(job) for job in self.jobs]})

    async def job(self, request: Request) -> Response:
        """Answer how far a job is."""
        return answer_json(_describe_job(self._find_job(request)))

    async def cancel_job(self, request: Request) -> Response:
        """End a job."""
        job = self._find_job(request)
        await asyncio.to_thread(self.jobs.cancel, job)
        await asyncio.to_thread(sweep_leftovers)  # what it was writing
        return answer_json(_describe_job(job))

    async def job_picture(self, request: Request) -> Response:
        """Answer the newest picture of a job."""
        job = self._find_job(request)
        if not job.picture:
            raise NotListedError("there is no picture of this job yet")
        return Response(job.picture, 200, media_type="image/png")

    async def job_file(self, request: Request) -> Response:
        """Answer a file that a job wrote, for download."""
        job, number = self._find_job(request), request.path_params["number"]
        if not 0 <= number < len(job.files) or not Path(job.files[number]).is_file():
            raise NotListedError(f"job {job.id} has no file {number}")
        path = Path(job.files[number])
        return FileResponse(path, filename=path.name, content_disposition_type="attachment")

    def _find_job(self, request: Request) -> Job:
        job = self.jobs.find(request.path_params["job"])
        if job is None:
            raise NotListedError(f"there is no job {request.path_params['job'][:80]!r}")
        return job


def _describe_job(job: Job) -> dict[str, Any]:
    files = [
        {"name": Path(path).name, "type": mimetypes.guess_type(path)[0] or "",
         "bytes": Path(path).stat().st_size if Path(path).is_file() else 0}
        for path in job.files
    ]  # fmt: skip
    return {
        "id": job.id, "kind": job.kind, "title": job.title, "state": job.state, "done": job.done,
        "total": job.total, "note": job.note, "error": job.error, "notes": job.notes,
        "pictures": job.pictures, "result": job.result, "files": files,
    }  # fmt: skip


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*") if path.is_file()}


def _knows(request: Request, tag: str) -> bool:
    given = request.headers.get("if-none-match", "")
    return tag in [word.strip().removeprefix("W/") for word in given.split(",")]


def _unchanged(tag: str) -> Response:
    return Response(status_code=304, headers={"etag": tag, "cache-control": "no-cache"})


def _taken(state: list[tuple[str, str]], name: str) -> str:
    """Take what a state says by a name out of it; the last one counts."""
    values = [value for key, value in state if key == name]
    state[:] = [pair for pair in state if pair[0] != name]
    return values[-1] if values else ""


def _pairs(state: Any) -> list[tuple[str, str]]:
    """Return a state that came as JSON as a query has it."""
    if not isinstance(state, Mapping):
        raise UsageError("there is no state: give it by its names, as a query has them")
    pairs = []
    for name, value in state.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict | list):
                raise UsageError(f"{str(name)[:80]} is not a text or a number")
            word = "" if one is None else ("no", "yes")[one] if isinstance(one, bool) else str(one)
            pairs.append((str(name), word))
    return pairs


async def _read_body(request: Request, most: int) -> bytes:
    """Return what was sent; raise _TooLargeError as soon as it is more than ``most`` bytes."""
    said = request.headers.get("content-length", "0")
    content = bytearray()
    too_large = _TooLargeError(f"this is larger than {plural(most >> 20, 'MB', 'MB')}")
    if said.isdecimal() and int(said) > most:
        raise too_large
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise too_large
    if not content:
        raise UsageError("nothing was sent: send the file as the body")
    return bytes(content)


async def _read_json(request: Request) -> dict[str, Any]:
    text = (await _read_body(request, _MOST_JSON)).decode("utf-8", "replace")
    found = parse_json(text, "what was sent", error=UsageError)
    if not isinstance(found, dict):
        raise UsageError("what was sent is not an object")
    return found


def listen(host: str, port: int | None, first: int = 8765) -> socket.socket:
    """Return a socket at a port, or at the next free one from ``first`` on.

    Raises UsageError where the port is taken or the host is none of this machine's.
    """
    for number in [port] if port is not None else [*range(first, first + 20), 0]:
        found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if os.name == "posix":  # elsewhere it would let others take the port over
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, number))
            found.listen()  # whoever comes at once waits until the server answers
        except OSError as error:
            found.close()
            if port is not None:
                raise UsageError(
                    f"port {port} of {host} cannot be used ({error.strerror}): give another --port"
                ) from None
            problem = error
            continue
        return found
    raise UsageError(f"nothing can listen on {host} ({problem.strerror}): give another --host")


def serve(explorer: Explorer, listening: socket.socket, parent: BinaryIO | None = None) -> None:
    """Answer until Ctrl-C, or until ``parent`` ends; all processes end with it, within a second."""
    import uvicorn

    app = explorer.make_app()

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """End what draws first: whoever waits for a picture is answered at once."""
            app.state.drawer.end()
            app.state.jobs.end()
            await super().shutdown(sockets)

    server = Server(
        uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False,
            timeout_graceful_shutdown=_END_SECONDS, lifespan="on", ws="none",
        )
    )  # fmt: skip

    def follow(stream: BinaryIO) -> None:
        stream.read()
        server.should_exit = True

    if parent is not None:
        threading.Thread(target=follow, args=(parent,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # which it raises again when it has ended
        server.run([listening])
