"""Freeze-D: the discriminator's first layers keep the weights they began with.

Mo, Cho, Shin: "Freeze the Discriminator: a Simple Baseline for Fine-Tuning GANs" (2020). The first
layers, near the picture, know what pictures are made of; fine-tuning the rest needs less data.
"""

from stylecli.errors import UsageError
from stylecli.networks.config import StyleGAN1Config
from stylecli.training.step import TrainingStep


def frozen_layers(config: StyleGAN1Config, count: int, resolution: int) -> list[str]:
    """Return the names of D's first ``count`` layers for pictures of ``resolution`` pixels.

    Layer 1 is FromRGB of that resolution, then come the two convolutions of its block, those of
    the next smaller block and so on, at last the head's convolution and first dense layer. Blocks
    above ``resolution``, which grow in afresh, are never frozen. Raises UsageError when D has
    fewer layers in front of its last one.
    """
    top = min(resolution, config.resolution).bit_length() - 1
    layers = [f"from_rgb.{top - 2}"]
    for r in range(top, 2, -1):
        layers += [f"blocks.{r - 3}.conv0", f"blocks.{r - 3}.conv1_down"]
    layers += ["head.conv", "head.dense0"]
    if not 0 <= count <= len(layers):
        raise UsageError(
            f"freeze_d {count} is not within 0 to {len(layers)}, the layers of a {2**top} px "
            "discriminator before its last one"
        )
    return layers[:count]


def describe_frozen(layers: list[str]) -> str:
    """Say which layers are frozen, as people name them."""
    said = []
    for name in layers:
        kind, place, *rest = name.split(".")
        if kind == "head":
            said.append(f"head {place}")
        else:
            side = 2 ** (int(place) + (2 if kind == "from_rgb" else 3))
            said.append(f"FromRGB {side} px" if kind == "from_rgb" else f"{rest[0]} {side} px")
    return ", ".join(said)


def freeze(step: TrainingStep, layers: list[str]) -> None:
    """Keep the parameters of D's ``layers`` as they are from now on.

    Their gradients are cleared before every update, and what momentum a checkpoint brought.
    """
    names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    step.flat_D.freeze(names)
    if step.adam_D.mean is not None:
        moments = step.flat_D.named(step.adam_D.mean)
        for name in names:
            moments[name].zero_()
