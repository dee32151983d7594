"""Any damage to any format ends in one sentence: never a crash, never memory by a header's word."""

import gzip
import json
import os
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylecli.data.sources.recognition import find_source
from stylecli.errors import StyleCLIError
from tests.data.sources import formats

MOST_MEMORY = 100 << 20  # the files have a few KiB
EXAMPLES = int(os.environ.get("STYLECLI_TEST_EXAMPLES", 15))  # for each format


def write_idx(folder):
    content = struct.pack(">4B3I", 0, 0, 8, 3, 4, 6, 6) + bytes(4 * 36)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    (folder / "train-labels-idx1-ubyte").write_bytes(
        struct.pack(">4BI4B", 0, 0, 8, 1, 4, 0, 1, 2, 3)
    )


def write_plain_idx(folder):
    content = struct.pack(">4B3I", 0, 0, 8, 3, 4, 6, 6) + bytes(4 * 36)
    (folder / "train-images-idx3-ubyte").write_bytes(content)


def write_pyramid(folder):
    pictures = np.arange(3 * 3 * 16, dtype=np.uint8).reshape(3, 3, 4, 4)
    formats.write_tfrecords(folder / "a-r02.tfrecords", pictures)
    with open(folder / "a-rxx.labels", "wb") as file:
        np.save(file, np.eye(3, dtype=np.float32))


def write_nvidia(folder):
    names = [f"00000/img0000000{number}.png" for number in range(3)]
    labels = {"labels": [[name, number] for number, name in enumerate(names)]}
    lines = [json.dumps({"name": name, "author": "A. Nyone"}) for name in names]
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, formats.picture_bytes())
        archive.writestr("dataset.json", json.dumps(labels))
        archive.writestr("metadata.jsonl", "\n".join(lines))


def write_nvidia_folder(folder):
    labels = {"labels": [["a.png", [0.5, 1]], ["b.png", [0.25, 0]]]}
    (folder / "dataset.json").write_text(json.dumps(labels))
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(formats.picture_bytes())


def write_rosinality(folder):
    formats.write_rosinality(folder, 40, sizes=(8,))


def write_lsun(folder):
    formats.write_lsun(folder, 40)


def write_cifar(folder):
    formats.write_cifar10(folder / "cifar-10-python.tar.gz", per_batch=1)


def write_cifar_batch(folder):
    rows = np.zeros((2, 3072), np.uint8)
    (folder / "meta").write_bytes(b"\x80\x02}.")
    (folder / "train").write_bytes(formats.python2_batch(rows, [0, 1], b"fine_labels"))


def write_celeba(folder):
    (folder / "img_align_celeba").mkdir()
    for number in (1, 2):
        (folder / "img_align_celeba" / f"{number}.jpg").write_bytes(formats.picture_bytes())
    (folder / "list_attr_celeba.txt").write_text("2\nHat Young\n1.jpg -1 1\n2.jpg 1 1\n")
    (folder / "identity_CelebA.txt").write_text("1.jpg 5\n2.jpg 5\n")


def write_shards(folder):
    for shard in range(2):
        content = formats.record(
            formats.encoded_example({b"image/encoded": formats.picture_bytes(), b"label": shard})
        )
        content = gzip.compress(content) if shard else content
        (folder / f"train-0000{shard}-of-00002").write_bytes(content)


def write_named_lmdb(folder):
    pictures = {
        f"{n:05d}".encode(): formats.picture_bytes((n, 0, 0), kind="bmp") for n in range(40)
    }
    formats.write_named_lmdb(folder / "a", {b"images": pictures, b"more": {b"0": b"text"}})


def write_wrapped(folder):
    (folder / "set" / "cat").mkdir(parents=True)
    (folder / "set" / "dataset.json").write_text('{"labels": {"cat/a.png": true, "b.jpg": false}}')
    (folder / "set" / "cat" / "a.png").write_bytes(formats.picture_bytes())
    (folder / "set" / "b.png").write_bytes(formats.picture_bytes())
    (folder / "set" / "scan").write_bytes(formats.picture_bytes())


def write_frame(folder):
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(formats.picture_bytes())
    (folder / "labels.csv").write_text(",id,label\n0,1,1.0\n1,2,2.0\n")
    (folder / "labels.json").write_text('[{"file_name": "1.jpg", "label": 0.5}, ["2", 1]]')


def write_labelled(folder):
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(formats.picture_bytes())
    (folder / "labels.csv").write_text('name,hat,"young"\n1.png,0,1\n2.png,0.5,"1"\n')
    np.save(folder / "labels.npy", np.eye(2))


WRITERS = [
    write_idx, write_plain_idx, write_pyramid, write_nvidia, write_nvidia_folder, write_rosinality,
    write_lsun, write_cifar, write_cifar_batch, write_celeba, write_labelled,
    write_shards, write_named_lmdb, write_wrapped, write_frame,
]  # fmt: skip

edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "wide"]),
        st.floats(0, 1, exclude_max=True),  # where in the file
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def damage(content, changes):
    """Return ``content`` with the changes made to it."""
    content = bytearray(content)
    for kind, share, new in changes:
        place = int(share * len(content))
        if kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = new
        elif kind == "wide":  # numbers in headers: the largest ones
            content[place : place + len(new)] = b"\xff" * len(new)
        else:
            content[place : place + len(new)] = new
    return bytes(content)


def use(path, labels=None):
    """Do with a source what packing does, up to decoding."""
    source = find_source(path, labels=labels)
    assert source.fingerprint() and source.name and source.notes is not None
    for index in range(min(len(source), 4)):
        item = source[index]
        assert item.name is not None and item.metadata is not None
        assert item.label is None or isinstance(item.label, int | tuple)
        item.open().close()


@pytest.mark.parametrize("write", WRITERS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(which=st.integers(0, 7), changes=edits)
def test_damage_ends_in_one_sentence(write, which, changes):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        chosen = files[which % len(files)]
        chosen.write_bytes(damage(chosen.read_bytes(), changes))
        labels = next(iter(sorted(folder.glob("labels.*"))[which % 2 :]), None)
        tracemalloc.start()
        for path in (folder, chosen):
            try:
                use(path, labels if path == folder else None)
            except StyleCLIError as error:
                assert "\n" not in str(error) and 10 < len(str(error)) < 1500
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_MEMORY
