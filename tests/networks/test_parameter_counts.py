"""Parameter counts of the paper's networks (spec: StyleGAN Tables 1, 2, 4)."""

import pytest
import torch
from torch import nn

from stylecli.networks.config import make_config
from stylecli.networks.discriminator import Discriminator
from stylecli.networks.stylegan1 import Generator


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("resolution", "generator", "discriminator"),
    [
        (4, 5_522_947, 6_561_793),
        (8, 11_295_750, 11_283_457),
        (16, 17_068_553, 16_005_121),
        (32, 22_841_356, 20_726_785),
        (64, 25_137_935, 22_498_049),
        (128, 25_843_858, 22_941_313),
        (256, 26_086_229, 23_052_353),
        (512, 26_179_768, 23_080_225),
        (1024, 26_219_627, 23_087_249),
    ],
)
def test_by_resolution(resolution: int, generator: int, discriminator: int) -> None:
    config = make_config("f", resolution=resolution)
    with torch.device("meta"):
        assert count(Generator(config)) == generator
        assert count(Discriminator(config)) == discriminator


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("a", 23_079_115),
        ("b", 23_079_115),
        ("traditional-8", 25_180_363),
        ("c", 30_400_651),
        ("d", 26_214_539),
        ("e", 26_219_627),
        ("f", 26_219_627),
        ("mapping-0", 24_118_379),
        ("mapping-1", 24_381_035),
        ("mapping-2", 24_643_691),
    ],
)
def test_by_configuration(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(Generator(make_config(preset))) == parameters
