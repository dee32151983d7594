"""What generate, mix and interpolate share: the network, its defaults, where files may go."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.output import Output
from stylecli.errors import UsageError
from stylecli.networks.config import StyleGAN1Config
from stylecli.provenance import make_provenance
from stylecli.workspace import find_network

if TYPE_CHECKING:
    from stylecli.networks.bundle import Bundle

LabelOption = Annotated[
    int | None,
    typer.Option("--label", min=0, help="Class to show. Default: the classes in turn, by seed."),
]
NoiseModeOption = Annotated[
    str | None,
    typer.Option("--noise-mode", help="const, random or none. Default const.", metavar="MODE"),
]
LodOption = Annotated[
    float | None,
    typer.Option("--lod", min=0, help="Halve the resolution this often. Default: the network's."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", help="float32 or bf16: quicker, less exact. Default float32."),
]
ScaleOption = Annotated[
    int | None, typer.Option("--scale", min=1, help="Enlarge every picture by whole pixels.")
]


@dataclass(frozen=True)
class Source:
    """A network ready to draw, and what its pictures will say of it."""

    bundle: "Bundle"
    path: Path
    digest: str  # SHA-256 of the file
    device: str

    @property
    def config(self) -> StyleGAN1Config:
        return self.bundle.config

    @property
    def folder(self) -> Path:
        """Where pictures of this network go unless told otherwise: out/<run>-<kimg>."""
        name = self.path.stem
        if name.startswith("network-snapshot-"):
            run = self.path.resolve().parent
            owner = run.parent.name if run.name == "run" else run.name
            name = f"{owner}-{name.removeprefix('network-snapshot-')}"
        return Path("out") / name

    def provenance(self, command: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a file made by ``command`` with ``settings`` carries."""
        return make_provenance(command, self.path, self.digest, settings)


def open_source(network: Path | None, device: str, output: Output) -> Source:
    """Load the network that was given or found, onto its device; say which was found."""
    from stylecli.checkpoint import load_network, network_digest
    from stylecli.devices import resolve_device

    found = find_network(network)
    if found.why:
        output.note(f"network: {found.path} ({found.why})")
    chosen = resolve_device(device)
    bundle = load_network(found.path)
    bundle.generator.to(chosen)
    return Source(bundle, found.path, network_digest(found.path), str(chosen))


def truncation(
    config: StyleGAN1Config, psi: float | None, psi_cutoff: int | None
) -> tuple[float, int | None]:
    """Return (psi, cutoff) from --psi and --psi-cutoff: the network's own where not given."""
    strength = psi if psi is not None else config.truncation_psi if config.has_w else 1.0
    if strength == 1:
        return 1.0, None
    cutoff = config.truncation_cutoff if psi_cutoff is None else psi_cutoff
    return strength, cutoff or None


def truncation_settings(psi: float, cutoff: int | None) -> dict[str, Any]:
    """Return the options that give exactly this truncation, for a file's provenance."""
    return {"psi": psi, "psi_cutoff": None if psi == 1 else cutoff or 0}


def resolve_noise(noise_mode: str | None, noise_seed: int | None) -> str:
    """Return the noise mode; --noise-seed means random, and contradicts the other modes."""
    mode = noise_mode or ("const" if noise_seed is None else "random")
    if mode not in ("const", "random", "none"):
        raise UsageError(f"noise mode {mode!r} is unknown: expected const, random or none")
    if noise_seed is not None and mode != "random":
        raise UsageError(f"--noise-seed {noise_seed} needs --noise-mode random, not {mode}")
    return mode


def is_done(
    path: Path,
    provenance: Mapping[str, Any],
    force: bool,
    read: Callable[[Path], Mapping[str, Any] | None] | None = None,
) -> bool:
    """Tell whether ``path`` already holds exactly this; raise UsageError when it holds other.

    So the same command again goes on where it was interrupted, and nothing is lost unasked.
    """
    if force or not path.exists():
        return False
    from stylecli.images import read_provenance

    if path.is_file() and (read or read_provenance)(path) == provenance:
        return True
    raise UsageError(f"{path} exists and was made otherwise: give another --out, or --force")
