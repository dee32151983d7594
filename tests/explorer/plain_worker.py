"""A process that answers as the one that draws does, without torch: for tests of the server."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylecli.errors import NetworkError, UsageError
from stylecli.explorer.worker import Message, Tell, answer_requests

DRAW_SECONDS = 0.1


def picture(request: Mapping[str, Any], tell: Tell) -> Message:
    """Take the time of a picture, or fail as the words ask for."""
    words = request["words"]
    if "--seeds=666" in words:
        os._exit(9)
    if "--seeds=667" in words:
        print("what a library prints does not fall among the messages")
        raise MemoryError("out of memory")
    if "--seeds=668" in words:
        raise UsageError("seed 668 is refused")
    time.sleep(DRAW_SECONDS)
    return {}, " ".join(words).encode()


def job(request: Mapping[str, Any], tell: Tell) -> Message:
    """Work until it is done, or forever."""
    if request.get("photo", "").endswith(".gif"):
        raise NetworkError("this job is refused")
    for step in range(3):
        tell("progress", done=step + 1, total=3, note="step")
        tell("picture", f"picture {step}".encode())
    tell("warning", warning="<b>the face is small</b>")
    while "endless" in request.get("photo", ""):
        time.sleep(0.05)
    return {"face": "out/net/projected/me.npz"}, b""


def export(request: Mapping[str, Any], tell: Tell) -> Message:
    """Write the words of a walk where they say."""
    path = Path(request["out"]) / "interpolation.mp4"
    path.parent.mkdir(parents=True)
    path.write_text(" ".join(request["words"]), encoding="utf-8")
    return {"path": str(path), "files": [str(path)]}, b""


def command(request: Mapping[str, Any], tell: Tell) -> Message:
    """Answer the words."""
    return {"command": " ".join(request["words"])}, b""


if __name__ == "__main__":
    answer_requests({"picture": picture, "project": job, "export": export, "command": command})
