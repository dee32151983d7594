"""Write small files in the formats of other tools, byte by byte from their published layouts."""

import io
import pickle
import struct
import tarfile

import lmdb
import numpy as np
from PIL import Image


def picture_bytes(colour=(1, 2, 3), size=(8, 8), kind="png"):
    """Return an encoded picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def crc32c(data):
    """Return CRC-32C bit by bit, as it is defined."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, content):
    """Return a protocol buffer field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(pixels, packed=True):
    """Return a tf.train.Example of uint8 [C, H, W], as StyleGAN's dataset_tool writes it."""
    if packed:
        shape = field(1, b"".join(map(varint, pixels.shape)))
    else:
        shape = b"".join(varint(1 << 3) + varint(side) for side in pixels.shape)
    features = {b"data": field(1, field(1, pixels.tobytes())), b"shape": field(3, shape)}
    entries = [field(1, field(1, name) + field(2, value)) for name, value in features.items()]
    return field(1, b"".join(entries))


def encoded_example(features):
    """Return a tf.train.Example of {name: bytes or integer}, as other tools write it."""
    entries = []
    for name, value in features.items():
        kind, content = (3, varint(value)) if isinstance(value, int) else (1, value)
        entries.append(field(1, field(1, name) + field(2, field(kind, field(1, content)))))
    return field(1, b"".join(entries))


def record(data):
    """Return a TFRecord: length, its masked CRC, the data, its masked CRC."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def write_tfrecords(path, pictures, packed=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(example(pixels, packed)) for pixels in pictures))


def write_lmdb(folder, entries):
    """Write {key: value} the way other tools do: an LMDB folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 26) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in entries.items():
                transaction.put(key, value)
    (folder / "lock.mdb").unlink()


def write_named_lmdb(folder, databases):
    """Write {database: {key: value}}, each under its name."""
    folder.mkdir()
    with lmdb.open(str(folder), map_size=1 << 26, max_dbs=9) as environment:
        for name, entries in databases.items():
            database = environment.open_db(name)
            with environment.begin(write=True) as transaction:
                for key, value in entries.items():
                    transaction.put(key, value, db=database)


def write_rosinality(folder, count, sizes=(8, 16), length=None):
    """Write ``{size}-{index:05d}`` -> JPEG, and ``length``."""
    entries = {
        f"{size}-{index:05d}".encode(): picture_bytes((index, 0, 0), (size, size), "jpeg")
        for index in range(count)
        for size in sizes
    }
    write_lmdb(folder, entries | {b"length": str(count if length is None else length).encode()})


def write_lsun(folder, count, start=0):
    """Write 40 hexadecimal digits -> WebP and JPEG by turns, 9 px wide, 8 px high."""
    write_lmdb(
        folder,
        {
            f"{start + index:040x}".encode(): picture_bytes(
                (index, 0, 0), (9, 8), ("webp", "jpeg")[index % 2]
            )
            for index in range(count)
        },
    )


def python2_batch(pixels, labels, label_key=b"labels"):
    """Return a batch as Python 2's cPickle wrote it, in protocol 2: text is SHORT_BINSTRING."""

    def text(value):
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value):
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    dtype = b"cnumpy\ndtype\nq\x01" + text(b"u1") + b"K\x00K\x01\x87Rq\x02"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
    array += text(b"b") + b"\x87Rq\x05(K\x01" + shape + dtype + b"\x89"
    array += text(pixels.tobytes()) + b"tb"
    listed = b"]q\x06(" + b"".join(map(number, labels)) + b"e"
    return (
        b"\x80\x02}q\x00(" + text(b"data") + array + text(label_key) + listed
        + text(b"batch_label") + text(b"training batch 1 of 5") + b"u."
    )  # fmt: skip


def write_tar(path, files):
    """Write {name: bytes} into a gzipped tarball."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_cifar10(path, per_batch=2):
    """Write a tarball like ``cifar-10-python.tar.gz`` and return all pixels [N, 3072]."""
    rng = np.random.default_rng(0)
    folder = "cifar-10-batches-py/"
    names = [f"class {number}".encode() for number in range(10)]
    files = {folder + "batches.meta": pickle.dumps({b"label_names": names}, protocol=2)}
    every = []
    for batch in range(1, 6):
        pixels = rng.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        files[f"{folder}data_batch_{batch}"] = python2_batch(pixels, range(per_batch))
        every.append(pixels)
    files[folder + "test_batch"] = python2_batch(every[0], range(per_batch))
    write_tar(path, files)
    return np.concatenate(every)
