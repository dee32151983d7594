"""The three small networks of MTCNN (Zhang et al. 2016), named as their published weights are."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from stylecli.data.alignment.detection import INSTALL, Detection
from stylecli.errors import DataError, WeightsError
from stylecli.interop.trees import parse_foreign

WEIGHTS = {  # of facenet-pytorch 2.6.0
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
# The paper's cascade; the numbers are those of its published implementation.
PYRAMID_FACTOR = 0.709  # each step halves the area
THRESHOLDS = (0.6, 0.7, 0.7)  # of P-, R- and O-Net
MIN_FACE = 40  # px in the picture that is searched
# In their upright crop true faces score 0.985 or more (12, tilted by up to 75 degrees),
# false alarms 0.957 or less (8 pictures without faces).
BELIEVED_SCORE = 0.97

Boxes = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]


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


class MtcnnDetector:
    """Finds faces with five points: both eyes, nose, both corners of the mouth."""

    name = "mtcnn"
    points = 5
    min_face = MIN_FACE

    def __init__(self) -> None:
        self._pnet, self._rnet, self._onet = _networks()

    @torch.inference_mode()
    def detect(self, image: Image.Image) -> list[Detection]:
        """Return the faces of an RGB picture, the surest first."""
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        picture = (pixels[None].float() - 127.5) / 128  # [1, 3, H, W], as the networks were trained
        boxes = self._propose(picture)
        boxes = self._refine(picture, boxes)
        return self._finish(picture, boxes)

    def believes(self, score: float, upright_score: float) -> bool:
        """Tell a true face from a false alarm by its score in its own upright crop."""
        return upright_score >= BELIEVED_SCORE

    def _propose(self, picture: Tensor) -> Boxes:
        """Run P-Net over a pyramid of the picture; return the boxes that may hold a face."""
        found_boxes, found_scores = [np.zeros((0, 4))], [np.zeros(0)]
        for level, scale in _pyramid(picture):
            scores, offsets = self._pnet(level)
            rows, columns = torch.nonzero(scores[0] >= THRESHOLDS[0], as_tuple=True)
            corner = torch.stack([columns, rows], 1).double() * ProposalNet.STRIDE
            boxes = torch.cat([corner, corner + ProposalNet.WINDOW], 1).numpy() / scale
            level_scores = scores[0, rows, columns].double().numpy()
            moved = _moved(boxes, offsets[0, :, rows, columns].T.double().numpy())
            kept = suppressed(boxes, level_scores, 0.5)
            found_boxes.append(moved[kept])
            found_scores.append(level_scores[kept])
        boxes, scores_ = np.concatenate(found_boxes), np.concatenate(found_scores)
        return _squared(boxes[suppressed(boxes, scores_, 0.7)])

    def _refine(self, picture: Tensor, boxes: Boxes) -> Boxes:
        if not len(boxes):
            return boxes
        scores, offsets = self._rnet(_crops(picture, boxes, RefinementNet.WINDOW))
        sure = (scores >= THRESHOLDS[1]).numpy()
        boxes, certainty = boxes[sure], scores.double().numpy()[sure]
        kept = suppressed(boxes, certainty, 0.7)
        return _squared(_moved(boxes[kept], offsets.double().numpy()[sure][kept]))

    def _finish(self, picture: Tensor, boxes: Boxes) -> list[Detection]:
        if not len(boxes):
            return []
        scores, offsets, points = self._onet(_crops(picture, boxes, OutputNet.WINDOW))
        sure = (scores >= THRESHOLDS[2]).numpy()
        boxes, certainty = boxes[sure], scores.double().numpy()[sure]
        sides = boxes[:, 2:] - boxes[:, :2]  # [n, 2]
        places = boxes[:, :2, None] + sides[:, :, None] * points.double().numpy()[sure]  # [n, 2, 5]
        boxes = _moved(boxes, offsets.double().numpy()[sure])
        kept = suppressed(boxes, certainty, 0.7, of_smaller=True)
        return [
            Detection(
                box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                landmarks=tuple((float(x), float(y)) for x, y in place.T),
                score=float(score),
            )
            for box, place, score in zip(boxes[kept], places[kept], certainty[kept], strict=True)
        ]


def _pyramid(picture: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Yield (reduced picture, its scale) while a window of P-Net fits, faces of 40 px first."""
    scale = ProposalNet.WINDOW / MIN_FACE
    height, width = picture.shape[2:]
    while min(height, width) * scale >= ProposalNet.WINDOW:
        size = (int(np.ceil(height * scale)), int(np.ceil(width * scale)))
        yield F.interpolate(picture, size, mode="area"), scale
        scale *= PYRAMID_FACTOR


def _crops(picture: Tensor, boxes: Boxes, side: int) -> Tensor:
    """Cut out boxes and reduce each to side × side by area; beyond the picture lies mid-grey."""
    height, width = picture.shape[2:]
    crops = []
    for x0, y0, x1, y1 in np.rint(boxes).astype(int):
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        inside = picture[:, :, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        around = (max(-x0, 0), max(x1 - width, 0), max(-y0, 0), max(y1 - height, 0))
        # Boxes may lie wholly outside; then padding alone cannot say their size.
        if 0 in inside.shape:
            crops.append(picture.new_zeros(1, 3, side, side))
        else:
            crops.append(F.interpolate(F.pad(inside, around), (side, side), mode="area"))
    return torch.cat(crops)


def _moved(boxes: Boxes, offsets: Boxes) -> Boxes:
    """Move each edge by its offset, a fraction of the box's width or height."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * np.tile(sides, 2)


def _squared(boxes: Boxes) -> Boxes:
    """Grow boxes to squares about their centres."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half], 1)


def suppressed(
    boxes: Boxes, scores: Scores, overlap: float, *, of_smaller: bool = False
) -> npt.NDArray[np.intp]:
    """Return the indices that survive non-maximum suppression, the highest score first.

    A box goes when a better one overlaps it by more than ``overlap`` of their union, or of the
    smaller of the two with ``of_smaller``, which also removes a box within another.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    todo = np.argsort(-scores, kind="stable")
    kept = []
    while len(todo):
        best, rest = todo[0], todo[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clip(0).prod(1)
        if of_smaller:
            base = np.minimum(areas[best], areas[rest])
        else:
            base = areas[best] + areas[rest] - shared
        todo = rest[shared <= overlap * base]
    return np.array(kept, dtype=np.intp)


@cache
def _networks() -> tuple[ProposalNet, RefinementNet, OutputNet]:
    """Load the three networks once per process. Raises DataError when the package is missing."""
    package = find_spec("facenet_pytorch")
    if package is None or package.origin is None:
        raise DataError(
            f"the detector mtcnn needs the weights in a package: run {INSTALL['mtcnn']}"
        )
    folder = Path(package.origin).parent / "data"
    pnet, rnet, onet = ProposalNet(), RefinementNet(), OutputNet()
    networks: tuple[nn.Module, ...] = (pnet, rnet, onet)
    for network, (name, digest) in zip(networks, WEIGHTS.items(), strict=True):
        network.load_state_dict(_weights(folder / name, digest))
        network.eval().requires_grad_(False)
    return pnet, rnet, onet


def _weights(path: Path, digest: str) -> dict[str, Tensor]:
    """Read a file of weights after its SHA-256 was found right; no code in it can run."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error}): run {INSTALL['mtcnn']}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise WeightsError(
            f"{path} has SHA-256 {found[:16]}..., expected {digest[:16]}...: run {INSTALL['mtcnn']}"
        )
    return {name: torch.from_numpy(value) for name, value in parse_foreign(content, path).items()}
