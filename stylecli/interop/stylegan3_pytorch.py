"""Snapshots of StyleGAN3's program -> our networks, T and R; the discriminator is StyleGAN2's.

What is not passed to a class is the program's default. Sizes of layers follow from the arguments,
as their names in the file do, and so do the filters, which are compared and left out.
"""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from stylecli.interop.conversion import ForeignNetworks
from stylecli.interop.stylegan2_pytorch import GENERATOR_ARGUMENTS, Settings, convert_modules
from stylecli.interop.trees import PersistentModule
from stylecli.networks.stylegan3_config import StyleGAN3Config
from stylecli.networks.stylegan3_filters import layer_filters


def convert_stylegan3(tree: Any, _: str) -> ForeignNetworks:
    """Return the networks of a snapshot {G, D, G_ema}, of which any may be missing.

    Raises NetworkError for settings that no network here has and networks that are not whole.
    """
    return convert_modules(tree, StyleGAN3Config, True, _generator_fields, generator_filters)


def generator_filters(config: StyleGAN3Config) -> Callable[[str], NDArray[Any] | None]:
    """Return the filters of a generator by their names."""
    return {
        f"synthesis.{plan.name}.{which}_filter": f
        for plan in config.layers()
        for which, f in zip(("up", "down"), layer_filters(plan), strict=True)
    }.get


def _generator_fields(G: PersistentModule) -> dict[str, Any]:
    """Return the fields of a configuration that a generator's arguments say."""
    given = Settings.of(G, GENERATOR_ARGUMENTS)
    mapping = given.inside("mapping_kwargs")
    given.take("num_fp16_res", None)  # of speed on a GPU alone
    radial = given.take("use_radial_filters", False)
    beta = mapping.take("w_avg_beta", 0.998)
    fields = {
        "preset": "stylegan3-r" if radial else "stylegan3-t", "radial_filters": bool(radial),
        "z_dim": given.take("z_dim", None), "label_dim": given.take("c_dim", None),
        "w_dim": given.take("w_dim", None), "resolution": given.take("img_resolution", None),
        "channels": given.take("img_channels", None),
        "mapping_layers": mapping.take("num_layers", 2),
        "mapping_lrmul": mapping.take("lr_multiplier", 0.01),
        "w_avg_beta": 1.0 if beta is None else beta,
        "fmap_base": given.take("channel_base", 32_768),
        "fmap_max": given.take("channel_max", 512),
        "num_layers": given.take("num_layers", 14),
        "num_critical": given.take("num_critical", 2),
        "first_cutoff": given.take("first_cutoff", 2),
        "first_stopband": given.take("first_stopband", 2**2.1),
        "last_stopband_rel": given.take("last_stopband_rel", 2**0.3),
        "margin": given.take("margin_size", 10),
        "output_scale": given.take("output_scale", 0.25),
        "conv_kernel": given.take("conv_kernel", 3),
        "filter_size": given.take("filter_size", 6),
        "lrelu_upsampling": given.take("lrelu_upsampling", 2),
        "conv_clamp": given.take("conv_clamp", 256),
        "magnitude_beta": given.take("magnitude_ema_beta", 0.999),
        "resample_filter": [1, 3, 3, 1],  # the discriminator's
    }  # fmt: skip
    mapping.finish()
    given.finish()
    return fields
