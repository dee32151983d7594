"""Who may ask the server: this machine's browsers and programs that know the token.

A page of another site can make a browser send requests here. It cannot send the token, which is in
a header, nor read an answer; and a name of its own that leads to this address is refused.
"""

import contextlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stylecli.files import to_json

TOKEN_HEADER = "x-stylecli-token"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'; frame-ancestors {framed}"
)
# A notebook shows the page in a frame: its own server is on this machine too, or it is an editor.
_NOTEBOOKS = "http://localhost:* http://127.0.0.1:* https://localhost:* vscode-webview:"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def answer_json(
    document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(to_json(document, default=str), status, headers, "application/json")


def answer_error(text: str, status: int) -> Response:
    return answer_json({"error": text}, status)


class Guard:
    """Answers only this machine's browsers and programs that know the token; sets safe headers."""

    def __init__(self, app: ASGIApp, token: str, host: str, framed: bool) -> None:
        self.app, self.token, self.host = app, token.encode(), host
        framed_by = _NOTEBOOKS if framed else "'none'"
        self.headers = [
            (b"content-security-policy", _POLICY.format(framed=framed_by).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                added = [header for header in self.headers if header[0] not in given]
                if b"cache-control" not in given:
                    added.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        refused = self._refuse(Request(scope))
        await (refused or self.app)(scope, receive, send_safely)

    def _refuse(self, request: Request) -> Response | None:
        """Return the answer to who may not ask; None for all others."""
        host = request.headers.get("host", "")
        if len(request.headers.getlist("host")) != 1 or not is_own_host(host, self.host):
            return answer_error(
                f"host {host[:80]!r} is not this server's: use the printed address", 403
            )
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return answer_error(f"origin {origin[:80]!r} may not ask: use the printed address", 403)
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
            request.url.path.startswith("/api/")
        ):
            return answer_error("pages of other sites may not ask: use the printed address", 403)
        if request.url.path.startswith("/api/"):
            token = request.headers.get(TOKEN_HEADER, "").encode("latin-1", "replace")
            if not hmac.compare_digest(token, self.token):
                return answer_error(
                    "the token is missing or wrong: open the printed address again", 401
                )
        return None


def is_own_host(header: str, host: str) -> bool:
    """Tell whether a Host header names this server: by address, or by a name of its own.

    A foreign name that leads to this address is how pages of other sites would get in. Any port
    will do: over ssh another one is forwarded.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", header)
    if match is None:
        return False
    name = match[1].strip("[]").lower().rstrip(".")
    if name in _LOOPBACK_NAMES or name == host.lower():
        return True
    if is_loopback(host):
        return False
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name in (socket.gethostname().lower(), socket.getfqdn().lower())


def is_loopback(host: str) -> bool:
    """Tell whether nothing but this machine reaches a host."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
