"""The network that comes with the package: generated faces before any training.

``demo.safetensors`` is a StyleGAN of the small preset, with wider layers, after hours on a
processor, ``demo.json`` the record of its run. `tests/benchmarks/ship_network.py` makes both.
``directions.safetensors`` has its directions.
"""

from pathlib import Path
from typing import Any

from stylecli.files import read_json

NAME = "shipped"  # --network shipped, where no file has that name
_HERE = Path(__file__).parent


def shipped_network() -> Path | None:
    """Return the network file that comes with the package; None where it was left out."""
    path = _HERE / "demo.safetensors"
    return path if path.is_file() else None


def shipped_directions() -> Path | None:
    """Return the directions of that network; None where they were left out."""
    path = _HERE / "directions.safetensors"
    return path if path.is_file() else None


def read_record() -> dict[str, Any]:
    """Return how the shipped network came about; empty where there is none.

    Keys: command, kimg, seconds, dataset, parameters, metrics, environment, licence, credit.
    """
    try:
        record: dict[str, Any] = read_json(_HERE / "demo.json")
    except FileNotFoundError:
        return {}
    return record
