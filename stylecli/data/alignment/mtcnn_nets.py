"""The three small networks of MTCNN (Zhang et al. 2016), named as their published weights are."""

import torch.nn.functional as F
from torch import Tensor, nn


def _pooled(x: Tensor, kernel: int) -> Tensor:
    """Take maxima at stride 2; an incomplete window at the far edge counts, as where trained."""
    return F.max_pool2d(x, kernel, stride=2, ceil_mode=True)


def _flat(x: Tensor) -> Tensor:
    """Flatten [N, C, H, W] in the order W, H, C, which the weights of the dense layers expect."""
    return x.permute(0, 3, 2, 1).flatten(1)


class ProposalNet(nn.Module):
    """P-Net: a fully convolutional look at every 12 × 12 window, two pixels apart."""

    WINDOW = 12  # px
    STRIDE = 2  # px

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (probability of a face [N, h, w], box offsets [N, 4, h, w]) of x [N, 3, H, W]."""
        x = _pooled(self.prelu1(self.conv1(x)), 2)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1)[:, 1], self.conv4_2(x)


class RefinementNet(nn.Module):
    """R-Net: judges and moves the boxes that were proposed, seen at 24 × 24."""

    WINDOW = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(64 * 3 * 3, 128), nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (probability of a face [N], box offsets [N, 4]) of x [N, 3, 24, 24]."""
        x = _pooled(self.prelu1(self.conv1(x)), 3)
        x = _pooled(self.prelu2(self.conv2(x)), 3)
        x = self.prelu4(self.dense4(_flat(self.prelu3(self.conv3(x)))))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class OutputNet(nn.Module):
    """O-Net: the last word on boxes, and five points per face, seen at 48 × 48."""

    WINDOW = 48

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(128 * 3 * 3, 256), nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (probability [N], box offsets [N, 4], points [N, 2, 5]) of x [N, 3, 48, 48].

        Points are fractions of the box's width (row 0) and height (row 1).
        """
        x = _pooled(self.prelu1(self.conv1(x)), 3)
        x = _pooled(self.prelu2(self.conv2(x)), 3)
        x = _pooled(self.prelu3(self.conv3(x)), 2)
        x = self.prelu5(self.dense5(_flat(self.prelu4(self.conv4(x)))))
        points = self.dense6_3(x).reshape(-1, 2, 5)  # five x, then five y
        return self.dense6_1(x).softmax(1)[:, 1], self.dense6_2(x), points
