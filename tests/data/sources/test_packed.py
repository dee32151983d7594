"""A dataset as a source: its pictures, labels and metadata, in any process."""

import pickle

import numpy as np

from stylecli.data.reader import open_dataset
from stylecli.data.sources.recognition import find_source
from stylecli.data.writer import DatasetWriter


def test_a_dataset_can_be_packed_again(tiny_lmdb):
    source, dataset = find_source(tiny_lmdb), open_dataset(tiny_lmdb)
    assert (len(source), source.name, source.class_names) == (24, "tiny", ["a", "b", "c"])
    assert [source[index].label for index in range(24)] == dataset.labels.tolist()
    picture = np.asarray(source[5].open())
    assert np.array_equal(picture.transpose(2, 0, 1), dataset[5][0])


def test_metadata_and_names_come_from_when_it_was_packed(tmp_path):
    known = {"source": "a/1.png", "author": "A. Nyone"}
    with DatasetWriter(tmp_path / "set.lmdb", resolution=4, channels=1) as writer:
        writer.add(np.zeros((1, 4, 4), np.uint8), (0.5, 1.0), known)
    item = pickle.loads(pickle.dumps(find_source(tmp_path / "set.lmdb")[0]))
    assert (item.name, item.metadata, item.label) == ("a/1.png", known, (0.5, 1.0))
