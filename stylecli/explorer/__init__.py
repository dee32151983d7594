"""The network in a browser: a server on this machine, its page, and the process that draws.

In a notebook ``explore`` shows the page where it is called.
"""

import atexit
import contextlib
import subprocess
import tempfile
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stylecli.errors import StyleCLIError
from stylecli.files import parse_json

if TYPE_CHECKING:
    from stylecli.networks.model import Bundle

FRAMED = "STYLECLI_EXPLORE_FRAMED"  # says to the command that a notebook shows its page
_END_SECONDS = 5.0


def explore(
    net: "Bundle | str | Path | None" = None, *, device: str = "auto", port: int | None = None,
    height: int = 800,
) -> "Page":  # fmt: skip
    """Open a network in a page of this notebook; see ``stylecli explore``.

    ``net`` is what load_network returns, or a path to a network or a run; None: as the command
    finds one. A loaded network is written to a temporary file first: give its path where the
    printed commands shall work later. ``height`` is that of the frame in pixels. The page ends with
    the returned object, or with Python. Raises StyleCLIError where the server cannot start.
    """
    return Page(net, device, port, height)


class Page:
    """A running page: ``address`` opens it in any browser; a notebook shows it in a frame."""

    def __init__(
        self, net: "Bundle | str | Path | None", device: str, port: int | None, height: int
    ) -> None:
        from stylecli.distributed.processes import start_python

        self.height = height
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if net is not None and not isinstance(net, str | Path):
            from stylecli.checkpoint import save_network

            self._folder = tempfile.TemporaryDirectory(prefix="stylecli-explore-")
            loaded, net = net, Path(self._folder.name) / "network.safetensors"
            save_network(net, loaded)
        words = ["explore", "--no-open", "--json", f"--device={device}"]
        words += [] if net is None else [f"--network={net}"]
        words += [] if port is None else [f"--port={port}"]
        self._said = tempfile.TemporaryFile()  # a pipe that nobody reads would stop it
        self._server = start_python(
            "stylecli", *words, environment={FRAMED: "1"}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._said,
        )  # fmt: skip
        assert self._server.stdout is not None
        text = b""
        while not text.endswith(b"}\n") and (line := self._server.stdout.readline()):
            text += line
        if not text.endswith(b"}\n"):
            self._said.seek(0)
            said = self._said.read().decode("utf-8", "replace").strip()
            self.close()
            raise StyleCLIError(said.splitlines()[-1].removeprefix("stylecli: ") if said else
                                "stylecli explore ended before it had an address")  # fmt: skip
        self.address: str = parse_json(text.decode(), "what explore printed")["address"]
        atexit.register(self.close)

    def close(self) -> None:
        """End the server; its page shows no further pictures."""
        atexit.unregister(self.close)
        for stream in (self._server.stdin, self._server.stdout, self._said):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()  # the server ends with its stdin
        try:
            self._server.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<the page of stylecli explore at {self.address}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the page in a frame."""
        return (
            f'<iframe src="{escape(self.address)}" title="stylecli explore" width="100%" '
            f'height="{int(self.height)}" style="border: 0" allow="fullscreen"></iframe>'
        )
