"""``stylecli explore``: the network in a browser. Also the program of the processes that draw."""

import os
import socket
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.app import read_words
from stylecli.cli.drawing import DrawingOptions, OpenedDrawing, OpenedNetwork, open_source
from stylecli.cli.faces import project_once
from stylecli.cli.options import (
    ClassifierSource,
    DeviceOption,
    JsonOption,
    NetworkOption,
    QuietOption,
)
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_words, find_and_check
from stylecli.errors import DataError, NetworkError, StyleCLIError, UsageError
from stylecli.explorer import FRAMED
from stylecli.explorer.worker import Message, Tell, answer_requests
from stylecli.latents import Search
from stylecli.progress import Progress
from stylecli.provenance import remake_command

if TYPE_CHECKING:
    from stylecli.cli.generate import Order
    from stylecli.images import Pictures

INSTALL = "pip install 'stylecli[explore]'"
_EVERY_ADDRESS = ("0.0.0.0", "::")
FIND_THE_FACE = "Find the face in it and cut it out"  # what the page calls it
_REACH = 3.0  # standard deviations to which sliders of directions go
_KEPT_NETWORKS = 2  # in the memory of a process that draws


def command(
    network: NetworkOption = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Default: 8765, or the next free one."),
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on. Others than this machine may ask then."),
    ] = "127.0.0.1",
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Open the network in a browser: sliders, mixes, walks, and the training of this folder.

    Example: stylecli explore

    Prints the address, and answers this machine alone until Ctrl-C. Over ssh it also prints the
    command for your own machine. Every picture has the command beside it that makes the same file.
    """
    output = Output(json=json, quiet=quiet)
    check_words(device=device)
    if not host.strip():  # it would be every address of this machine
        raise UsageError("--host is empty: give an address, or leave it out for this machine alone")
    found = find_and_check(network, output)
    given = network if network is None or network.is_dir() else found.path  # fetched from the hub
    try:
        from stylecli.explorer.guard import is_loopback
        from stylecli.explorer.server import Explorer, listen, serve
    except ModuleNotFoundError as error:
        raise StyleCLIError(f"explore needs {error.name}: {INSTALL}") from None
    from stylecli.explorer.workplace import Workplace

    framed = os.environ.get(FRAMED) == "1"
    explorer = Explorer(start_drawing, Workplace(given), device, host, framed, early=True)
    with listen(host, port) as listening:
        number = listening.getsockname()[1]
        name = socket.gethostname() if host in _EVERY_ADDRESS else host
        name = f"[{name}]" if ":" in name else name
        address = f"http://{name}:{number}/#token={explorer.token}"
        output.result({"address": address, "port": number, "token": explorer.token}, [address])
        sys.stdout.flush()
        if not is_loopback(host):
            output.warn(
                f"everyone who reaches {host} and learns the address can draw, and read what "
                f"training shows, without encryption: leave out --host, and forward a port by ssh"
            )
        elif os.environ.get("SSH_CONNECTION"):
            output.note(f"on your own machine: {forwarding(number)}, then open the address there")
        output.note("press Ctrl-C to end")
        if show and not os.environ.get("SSH_CONNECTION"):
            import webbrowser

            webbrowser.open(address)
        serve(explorer, listening, sys.stdin.buffer if framed else None)


def forwarding(port: int) -> str:
    """Return the command by which another machine reaches a port of this one, over ssh."""
    server = os.environ.get("SSH_CONNECTION", "").split()
    host = server[2] if len(server) == 4 else "THIS-MACHINE"
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    return f"ssh -L {port}:127.0.0.1:{port} {f'{user}@' if user else ''}{host}"


def start_drawing() -> "subprocess.Popen[bytes]":
    """Start a process that draws; it answers requests until its stdin ends."""
    from stylecli.distributed.processes import start_python

    return start_python(__name__, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


# ---- the process that draws


class _Reporting(Output):
    """Tells the server what a command tells a terminal."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(quiet=True)
        self.tell = tell
        self.document: dict[str, Any] = {}

    def result(self, document: Mapping[str, Any], lines: Sequence[str]) -> None:
        self.document = dict(document)

    def note(self, text: str) -> None:
        self.tell("note", note=text)

    def warn(self, text: str) -> None:
        self.tell("warning", warning=text)

    @contextmanager
    def progress(self, title: str, unit: str = "", seconds_left: Any = None) -> Iterator[Progress]:
        def report(done: float, total: float, note: str = "") -> None:
            count = f"{done:g} of {total:g} {unit}".strip()
            text = f"{count}, {note}" if note else count
            self.tell("progress", done=done, total=total, note=text)

        yield report


@dataclass(frozen=True)
class _Asked(DrawingOptions):
    """How to draw, with a network that is open already."""

    source: OpenedNetwork | None = None
    reporting: Output = field(default_factory=lambda: Output(quiet=True))

    def output(self) -> Output:
        """Return where results and notes go: to the server."""
        return self.reporting

    def open(self, output: Output, *, usual_psi: float | None = None) -> OpenedDrawing:
        """Resolve for the opened network how to draw."""
        assert self.source is not None
        return self.draw_with(self.source, usual_psi)


class Studio:
    """Opened networks, and what is asked of them."""

    def __init__(self) -> None:
        self._opened: OrderedDict[tuple[Any, ...], OpenedNetwork] = OrderedDict()
        self._places: dict[Path, tuple[Any, ...]] = {}  # where networks draw pictures now

    def handlers(self) -> dict[str, Any]:
        """Return what answers each request."""
        return {
            "network": self.describe, "directions": self.directions, "find": self.find_directions,
            "picture": self.picture, "sheet": self.sheet, "mix": self.sheet, "walk": self.frame,
            "preview": self.preview, "command": self.command, "measure": self.measure,
            "keep": self.keep, "export": self.export, "project": self.project,
        }  # fmt: skip

    def open(self, request: Mapping[str, Any]) -> OpenedNetwork:
        """Return a network, from memory where its file has not changed."""
        from stylecli.rendering import hold_still

        path = Path(request["network"])
        state = path.stat()
        key = (str(path), state.st_size, state.st_mtime_ns, request["device"])
        if key not in self._opened:
            self._opened[key] = opened = open_source(path, request["device"], Output(quiet=True))
            hold_still(opened.bundle.generator)
            while len(self._opened) > _KEPT_NETWORKS:
                self._opened.popitem(last=False)
        self._opened.move_to_end(key)
        return self._opened[key]

    def _read(
        self, request: Mapping[str, Any], tell: Tell
    ) -> tuple[_Asked, _Reporting, dict[str, Any]]:
        """Return how to draw, where to report, and the command's own options."""
        given = read_words(request["command"], request["words"])
        reporting = _Reporting(tell)
        own = {item.name for item in fields(DrawingOptions)}
        how = {name: given.pop(name) for name in list(given) if name in own}
        source = self.open(request)
        if source.config.moves_pictures:
            self._hold_at(source, how.get("translate"), how.get("rotate"))
        asked = _Asked(**{**how, "force": True}, source=source, reporting=reporting)
        return asked, reporting, given

    def _hold_at(self, source: OpenedNetwork, *place: Any) -> None:
        """Forget what was drawn with pictures in another place; the next drawing moves them."""
        from stylecli.rendering import hold_still

        if self._places.get(source.path) != place:
            source.bundle.generator.move_pictures((0.0, 0.0), 0.0)
            hold_still(source.bundle.generator)
            self._places[source.path] = place

    def describe(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Answer what a network is and can do."""
        from stylecli.provenance import shown_path
        from stylecli.styles import style_bands

        source = self.open(request)
        config = source.config
        return {
            "network": shown_path(source.path), "sha256": source.digest, "preset": config.preset,
            "width": config.width, "height": config.height, "channels": config.channels,
            "num_ws": config.num_ws,
            "layers": [str(config.size_at(side)) for side in config.style_sides],
            "bands": style_bands(config.style_sides) if config.has_w else {},
            "has_w": config.has_w, "has_noise": config.has_noise, "truncates": config.truncates,
            "moves_pictures": config.moves_pictures, "grows": config.grows,
            "deepest_lod": config.deepest_lod, "classes": config.label_dim,
            "psi": config.truncation_psi, "psi_cutoff": config.truncation_cutoff,
            "has_preview": config.preview_halvings > 0, "device": source.device,
        }, b""  # fmt: skip

    def directions(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Answer the directions that are kept for a network."""
        try:
            found = self.open(request).find_directions()
        except NetworkError as error:
            return {"directions": [], "why": str(error)}, b""
        rows = [
            {"title": _title(row), "least": -_REACH, "most": _REACH, **row}
            for row in found.describe()
        ]
        return {"directions": rows}, b""

    def find_directions(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Find directions in the weights, as ``stylecli directions find`` does; answer all."""
        from stylecli.cli.directions import add_found

        add_found(
            self.open(request), Search(), ClassifierSource(None), None, None, False,
            _Reporting(tell),
        )  # fmt: skip
        return self.directions(request, tell)

    def _order(self, request: Mapping[str, Any], tell: Tell) -> "Order":
        from stylecli.cli.generate import resolve_order

        how, output, given = self._read(request, tell)
        given.pop("save_ws")
        return resolve_order(how, output, **given)

    def picture(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Answer a picture: the bytes of the file that the command writes."""
        from stylecli.images import encode_png

        order = self._order(request, tell)
        (picture,) = order.pictures(order.numbers)
        return {}, encode_png(order.sized(picture), order.provenance(order.numbers))

    def preview(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Answer a small true picture; nothing where the network has none."""
        from stylecli.images import encode_png

        if not self.open(request).config.preview_halvings:
            return {}, b""
        order = self._order(request, tell)
        order = replace(order, drawing=replace(order.drawing, preview=True))
        (picture,) = order.pictures(order.numbers)
        return {}, encode_png(picture)

    def sheet(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Answer a sheet, as its command writes it."""
        how, output, given = self._read(request, tell)
        run = _function_of(request["command"])
        with tempfile.TemporaryDirectory(prefix="stylecli-explore-") as folder:
            run(how=how, **{**given, "out": Path(folder) / "sheet.png"})
            return {}, Path(output.document["paths"][0]).read_bytes()

    def frame(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Answer one frame of a walk."""
        from stylecli.images import encode_png

        walk = self._walk(request, tell)
        number = str(request["frame"] or "0")
        if not number.isascii() or not number.isdecimal() or int(number) >= walk.frames:
            raise UsageError(f"frame {number[:40]!r} is not one of 0 to {walk.frames - 1}")
        return {}, encode_png(next(iter(walk.draw(int(number)))))

    def measure(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Answer how long a walk is."""
        walk = self._walk(request, tell)
        return {"frames": walk.frames, "fps": walk.target.fps, "keys": walk.keys,
                "height": walk.size[0], "width": walk.size[1]}, b""  # fmt: skip

    def _walk(self, request: Mapping[str, Any], tell: Tell) -> Any:
        from stylecli.cli.interpolate import resolve_walk

        how, output, given = self._read(request, tell)
        return resolve_walk(how, output, **given)

    def command(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Answer the command line that makes the same file, and where it writes it."""
        if request["command"] == "interpolate":
            walk = self._walk(request, tell)
            return {"command": remake_command(walk.provenance), "file": str(walk.target.path)}, b""
        if request["command"] == "mix":
            return self._describe_mix(request, tell)
        order = self._order(request, tell)
        path = order.target.path(order.name(order.numbers[0]))
        record = order.provenance(order.numbers, **order.sheet)
        return {
            "command": remake_command(record),
            "file": str(order.path_of_sheet if order.sheet else path),
        }, b""

    def _describe_mix(self, request: Mapping[str, Any], tell: Tell) -> Message:
        from stylecli.cli.mix import resolve_mix, sheet_path

        how, output, given = self._read(request, tell)
        other = ("video", "key_seconds", "fps", "video_format", "each", "labels")
        labels = given["labels"]
        for name in other:
            given.pop(name)
        mix, sheets = resolve_mix(how, output, **given)
        ((name, (option, _)),) = sheets.items()
        record = mix.provenance(option, labels=labels)
        return {"command": remake_command(record), "file": str(sheet_path(mix, name, sheets))}, b""

    def keep(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Write the styles of a picture, as ``generate --save-ws`` does."""
        from stylecli.cli.generate import save_styles

        save_styles(self._order(request, tell), Path(request["path"]), True, _Reporting(tell))
        return {}, b""

    def export(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Write the video of a walk where its command does."""
        how, output, given = self._read(request, tell)
        _function_of("interpolate")(how=how, **{**given, "out": Path(request["out"])})
        return {"path": output.document["path"], "files": [output.document["path"]]}, b""

    def project(self, request: Mapping[str, Any], tell: Tell) -> Message:
        """Find the styles of a photograph, as ``stylecli project`` does."""
        from stylecli.data.alignment.portrait import NoFaceError
        from stylecli.images import encode_png, enlarge, visible_scale
        from stylecli.saved_ws import read_ws_provenance

        def watch(picture: "Pictures") -> None:
            tell("picture", encode_png(enlarge(picture, visible_scale(min(picture.shape[:2])))))

        source = replace(self.open(request), output=_Reporting(tell))
        photo, align = Path(request["photo"]), bool(request["align"])
        try:
            found = project_once(source, photo, align=align, watch=watch)
        except NoFaceError:
            raise DataError(
                f"no face found in {request['name']}: untick '{FIND_THE_FACE}' to take its "
                f"central square, and give it again"
            ) from None
        results = (read_ws_provenance(found.path) or {}).get("results", {})
        return {"face": found.path.as_posix(), "results": results}, b""


def _title(row: Mapping[str, Any]) -> str:
    """Return what the page calls a direction: ``sefa-coarse.2`` is coarse component 2."""
    stem, _, number = row["name"].rpartition(".")
    if row["method"] == "sefa" and stem.startswith("sefa"):
        return f"{stem[5:]} component {number}".strip()
    return str(row["name"]).replace("-", " ").replace("_", " ")


def _function_of(name: str) -> Any:
    """Return a drawing command's own function, which takes ``how``."""
    import importlib

    return importlib.import_module(f"stylecli.cli.{name}").command.__wrapped__


if __name__ == "__main__":
    answer_requests(Studio().handlers())
