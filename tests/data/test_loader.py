"""The stream of batches depends on seed and position alone."""

import numpy as np
import pytest
import torch

from stylecli.data import loader as loader_module
from stylecli.data.loader import BatchLoader
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import NetworkError, UsageError

COUNT = 10


@pytest.fixture
def dataset(tmp_path):
    """Write ten pictures that tell their number, on the left and in the label, and their side."""
    path = tmp_path / "ten.lmdb"
    with DatasetWriter(path, resolution=8, channels=1) as writer:
        for index in range(COUNT):
            pixels = np.zeros((1, 8, 8), np.uint8)
            pixels[..., :4] = index + 1
            writer.add(pixels, index)
    return open_dataset(path)


def draw(loader, batches):
    """Return all pictures of so many batches, one after the other, as numbers with a sign."""
    images = torch.cat([loader.next(batch)[0] for batch in batches]).int()
    return (images[:, 0, 0, 0] - images[:, 0, 0, -1]).tolist()  # negative: mirrored


def test_every_epoch_shows_every_picture_once_in_another_order(dataset):
    shown = draw(BatchLoader(dataset, seed=0), [4] * 5)
    first, second = shown[:COUNT], shown[COUNT:]
    assert sorted(first) == sorted(second) == list(range(1, COUNT + 1))
    assert first != second


def test_the_stream_does_not_depend_on_the_batch_size(dataset):
    whole = draw(BatchLoader(dataset, seed=1, mirror=True), [30])
    assert draw(BatchLoader(dataset, seed=1, mirror=True), [7, 3, 16, 4]) == whole


def test_ranks_share_the_stream_of_one(dataset):
    whole = draw(BatchLoader(dataset, seed=1, mirror=True), [12, 12])
    for rank in range(3):
        loader = BatchLoader(dataset, seed=1, rank=rank, world_size=3, mirror=True)
        assert draw(loader, [12, 12]) == whole[rank::3]


def test_goes_on_from_a_kept_position(dataset):
    loader = BatchLoader(dataset, seed=2, mirror=True)
    draw(loader, [7, 7])
    resumed = BatchLoader(dataset, seed=2, mirror=True)
    resumed.load_state_dict(loader.state_dict())
    assert draw(resumed, [9, 9]) == draw(loader, [9, 9])


def test_seeds_differ(dataset):
    assert draw(BatchLoader(dataset, seed=0), [20]) != draw(BatchLoader(dataset, seed=1), [20])


def test_mirrors_about_half_and_only_when_asked(dataset):
    plain = draw(BatchLoader(dataset, seed=0), [2000])
    mirrored = draw(BatchLoader(dataset, seed=0, mirror=True), [2000])
    assert [abs(number) for number in mirrored] == plain
    assert 900 < sum(number < 0 for number in mirrored) < 1100


@pytest.mark.parametrize("held_bytes", [0, 1 << 20])
def test_levels_match_the_dataset_held_in_memory_or_not(dataset, monkeypatch, held_bytes):
    monkeypatch.setattr(loader_module, "HELD_BYTES", held_bytes)
    loader = BatchLoader(dataset, seed=0)
    for level in (0, 1, 0):
        images, labels = loader.next(4, level)
        indices = labels.argmax(1).numpy()
        assert np.array_equal(images.numpy(), dataset.read(indices, level))


def test_a_batch_may_be_changed_without_spoiling_the_next(dataset):
    loader = BatchLoader(dataset, seed=0)
    loader.next(COUNT)[0].fill_(255)
    assert sorted(draw(loader, [COUNT])) == list(range(1, COUNT + 1))


def test_labels_are_one_hot_of_the_pictures_shown(dataset):
    images, labels = BatchLoader(dataset, seed=0).next(6)
    assert labels.shape == (6, COUNT) and labels.dtype == torch.float32
    assert torch.equal(labels.sum(1), torch.ones(6))
    assert torch.equal(labels.argmax(1) + 1, images[:, 0, 0, 0].long())


def test_refuses_what_cannot_be_shared_or_resumed(dataset):
    with pytest.raises(UsageError, match="batch 7 does not divide by 2 processes"):
        BatchLoader(dataset, seed=0, world_size=2).next(7)
    with pytest.raises(NetworkError, match="data position -1"):
        BatchLoader(dataset, seed=0).load_state_dict({"position": -1})
