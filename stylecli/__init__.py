"""stylecli: train, run and measure StyleGAN. Names resolve on first use: importing is cheap."""

from typing import TYPE_CHECKING

from stylecli.lazy import lazy_attributes

if TYPE_CHECKING:
    from stylecli import metrics as metrics
    from stylecli import ops as ops
    from stylecli.checkpoint import load_network as load_network
    from stylecli.checkpoint import save_network as save_network
    from stylecli.data.alignment.geometry import align_face as align_face
    from stylecli.data.reader import open_dataset as open_dataset
    from stylecli.errors import StyleCLIError as StyleCLIError
    from stylecli.networks.model import new_network as new_network
    from stylecli.sampling import generate as generate

__version__ = "0.1.0"

_PUBLIC = {
    "StyleCLIError": "stylecli.errors",
    "align_face": "stylecli.data.alignment.geometry",
    "generate": "stylecli.sampling",
    "load_network": "stylecli.checkpoint",
    "metrics": "",
    "new_network": "stylecli.networks.model",
    "open_dataset": "stylecli.data.reader",
    "ops": "",
    "save_network": "stylecli.checkpoint",
}
__all__ = ["StyleCLIError", "__version__", "align_face", "generate", "load_network", "metrics",
           "new_network", "open_dataset", "ops", "save_network"]  # fmt: skip

__getattr__ = lazy_attributes(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)
