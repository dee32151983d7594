"""stylecli: train, run and measure StyleGAN. Names resolve on first use: importing is cheap."""

from typing import TYPE_CHECKING

from stylecli.lazy import lazy_attributes

if TYPE_CHECKING:
    from stylecli import metrics as metrics
    from stylecli import ops as ops
    from stylecli.checkpoint import load_network as load_network
    from stylecli.checkpoint import save_network as save_network
    from stylecli.commands import edit as edit
    from stylecli.commands import figures as figures
    from stylecli.commands import generate as generate
    from stylecli.commands import grid as grid
    from stylecli.commands import interpolate as interpolate
    from stylecli.commands import mix as mix
    from stylecli.commands import project as project
    from stylecli.commands import sharpen as sharpen
    from stylecli.data.alignment.geometry import align_face as align_face
    from stylecli.data.reader import open_dataset as open_dataset
    from stylecli.descriptions import info as info
    from stylecli.errors import StyleCLIError as StyleCLIError
    from stylecli.explorer import explore as explore
    from stylecli.hardware import tune_memory as tune_memory
    from stylecli.networks.model import new_network as new_network

__version__ = "0.2.0"

_PUBLIC = {
    "StyleCLIError": "stylecli.errors",
    "align_face": "stylecli.data.alignment.geometry",
    "edit": "stylecli.commands",
    "explore": "stylecli.explorer",
    "figures": "stylecli.commands",
    "generate": "stylecli.commands",
    "grid": "stylecli.commands",
    "info": "stylecli.descriptions",
    "interpolate": "stylecli.commands",
    "load_network": "stylecli.checkpoint",
    "metrics": "",
    "mix": "stylecli.commands",
    "new_network": "stylecli.networks.model",
    "open_dataset": "stylecli.data.reader",
    "ops": "",
    "project": "stylecli.commands",
    "save_network": "stylecli.checkpoint",
    "sharpen": "stylecli.commands",
    "tune_memory": "stylecli.hardware",
}
__all__ = ["StyleCLIError", "__version__", "align_face", "edit", "figures", "generate", "grid",
           "info", "interpolate", "load_network", "metrics", "mix", "new_network", "open_dataset",
           "ops", "project", "save_network", "sharpen", "tune_memory"]  # fmt: skip

__getattr__ = lazy_attributes(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)
