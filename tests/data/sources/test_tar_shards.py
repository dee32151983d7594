"""Tar files and shards: samples, labels, and tars of strangers."""

import io
import json
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stylecli.cli.app import app
from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import pack
from stylecli.data.reader import open_dataset
from stylecli.data.sources import tar_shards
from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError, ExitCode, UsageError


def picture(value=0, side=8, suffix="PNG"):
    pixels = np.full((side, side, 3), value % 256, np.uint8)
    pixels[0, 0] = value // 256
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, suffix)
    return stream.getvalue()


def make_tar(path, members, format=tarfile.PAX_FORMAT, **more):
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, dict):  # what the header says
                for key, value in content.items():
                    setattr(info, key, value)
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def samples(first, count, **texts):
    for number in range(first, first + count):
        yield f"{number:06d}.png", picture(number)
        for kind, text in texts.items():
            yield f"{number:06d}.{kind}", text(number).encode()


def labels_of(source):
    return [source[index].label for index in range(len(source))]


def test_shards_are_one_source_by_folder_and_by_pattern(tmp_path):
    for shard in range(3):
        make_tar(tmp_path / f"shards-{shard:03d}.tar",
                 samples(4 * shard, 4, cls=lambda n: f"{n % 2}\n",
                         json=lambda n: json.dumps({"author": f"a{n}"}),
                         txt=lambda n: f"caption {n}"))  # fmt: skip
    folder = find_source(tmp_path)
    pattern = find_source(tmp_path / "shards-{000..002}.tar")
    assert len(folder) == len(pattern) == 12 and folder.fingerprint() == pattern.fingerprint()
    assert labels_of(folder) == [0, 1] * 6 and folder.class_names == ["0", "1"]
    assert folder.name == tmp_path.name and pattern.name == "shards"
    known = folder[5].metadata
    assert known == {"source": "shards-001.tar/000005.png", "author": "a5", "text": "caption 5"}
    assert np.asarray(folder[5].open())[1, 1].tolist() == [5, 5, 5]
    assert len(find_source(tmp_path / "shards-001.tar")) == 4
    with pytest.raises(DataError, match=r"shards-003\.tar"):
        find_source(tmp_path / "shards-{000..003}.tar")
    with pytest.raises(DataError, match="range"):
        find_source(tmp_path / "shards-{2..1}.tar")


def test_packing_keeps_labels_and_metadata_and_continues(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for shard in range(2):
        texts = {"cls": lambda n: "ab"[n % 2], "txt": lambda n: f"t{n}"}
        make_tar(tmp_path / "in" / f"x-{shard}.tar", samples(10 * shard, 10, **texts))
    source, settings = find_source(tmp_path / "in"), PackSettings(resolution=8)
    pack(source, tmp_path / "whole.lmdb", settings, workers=1)
    calls = []

    def stop(done, total, note=""):
        calls.append(done)
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(Exception, match="continue"):
        pack(source, tmp_path / "parts.lmdb", settings, workers=1, progress=stop)
    again = find_source(tmp_path / "in")  # as another command finds it
    calls.clear()
    pack(again, tmp_path / "parts.lmdb", settings, workers=1,
         progress=lambda done, total, note="": calls.append(done))  # fmt: skip
    assert calls[0] >= 7
    whole, parts = open_dataset(tmp_path / "whole.lmdb"), open_dataset(tmp_path / "parts.lmdb")
    assert whole.digest == parts.digest and len(parts) == 20
    assert parts.class_names == ["a", "b"] and parts.labels.tolist() == [0, 1] * 10
    assert parts.metadata(13) == {"source": "x-1.tar/000013.png", "text": "t13"}


def test_kinds_of_labels(tmp_path):
    def read(**texts):
        return find_source(make_tar(tmp_path / "s.tar", samples(0, 4, **texts)))

    assert labels_of(read(cls=lambda n: str(n + 1))) == [0, 1, 2, 3]  # counted from 1
    assert labels_of(read(json=lambda n: json.dumps({"label": n % 2}))) == [0, 1, 0, 1]
    vectors = read(json=lambda n: json.dumps({"label": [n, 0.5]}))
    assert labels_of(vectors)[2] == (2.0, 0.5) and vectors.class_names is None
    named = read(json=lambda n: json.dumps({"class_name": "yx"[n % 2]}))
    assert named.class_names == ["x", "y"] and labels_of(named) == [1, 0, 1, 0]
    texts = read(txt=lambda n: ["cat", "dog"][n % 2])
    assert texts.class_names == ["cat", "dog"]
    captions = read(txt=lambda n: f"picture number {n}")
    assert captions.class_names is None and captions[1].metadata["text"] == "picture number 1"
    with pytest.raises(DataError, match="mixes kinds"):
        read(cls=lambda n: ["0", "cat"][n % 2])
    some = find_source(make_tar(tmp_path / "s.tar", [*samples(0, 2, cls=str), *samples(2, 2)]))
    assert labels_of(some) == [None] * 4 and any("lack a label" in note for note in some.notes)
    assert find_source(tmp_path / "s.tar", own_labels=False).notes == []


def test_a_tar_of_folders_has_classes_as_a_zip_has(tmp_path):
    members = [(f"set/{kind}/{n}.png", picture(n)) for kind in ("b", "a") for n in range(2)]
    source = find_source(make_tar(tmp_path / "pets.tar", [("set/readme.txt", b"x"), *members]))
    assert source.class_names == ["a", "b"] and labels_of(source) == [0, 0, 1, 1]
    assert source[0].name == "pets.tar/set/a/0.png" and source.name == "pets"


def test_several_pictures_of_a_sample_and_equal_names(tmp_path):
    source = find_source(make_tar(tmp_path / "s.tar", [
        ("a.mask.png", picture(1)), ("a.png", picture(2)), ("b.png", picture(3)),
        ("b.depth.png", picture(4)), ("a.png", picture(5)), ("c.cls", b"1"),
    ]))  # fmt: skip
    assert len(source) == 2
    assert [np.asarray(source[i].open())[1, 1, 0] for i in range(2)] == [5, 3]
    assert any("the later one is taken" in note for note in source.notes)


def test_the_training_set_is_taken_of_several(tmp_path):
    for name in ("x-train-0", "x-train-1", "x-val-0"):
        make_tar(tmp_path / f"{name}.tar", samples(0, 2))
    source = find_source(tmp_path)
    assert len(source) == 4 and any("x-val-0" in note for note in source.notes)


@pytest.mark.parametrize("format", (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
def test_long_and_strange_names_in_every_format(tmp_path, format):
    long = "/".join(["f" * 60] * 3) + "/ü.png"
    members = [(long, picture(1)), ("n" * 90 + ".png", picture(2))]
    source = find_source(make_tar(tmp_path / "s.tar", members, format=format))
    assert source[1].name == f"s.tar/{'n' * 90}.png" or source[0].name == f"s.tar/{'n' * 90}.png"
    assert {item.name for item in (source[0], source[1])} >= {f"s.tar/{long}"}


def test_nothing_of_a_hostile_tar_leaves_its_place(tmp_path):
    (tmp_path / "in").mkdir()
    source = find_source(make_tar(tmp_path / "in" / "s.tar", [
        ("../../up.png", picture(1)), ("/etc/root.png", picture(2)), ("C:\\x\\y.png", picture(3)),
        ("link.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("hard.png", {"type": tarfile.LNKTYPE, "linkname": "up.png"}),
        ("pipe.png", {"type": tarfile.FIFOTYPE}), ("dev.png", {"type": tarfile.CHRTYPE}),
        ("sparse.png", {"type": tarfile.GNUTYPE_SPARSE}),
        (".hidden.png", picture(4)), ("__MACOSX/._a.png", picture(5)), ("empty.png", b""),
        ("dir/", {"type": tarfile.DIRTYPE}),
    ]))  # fmt: skip
    names = {source[index].name for index in range(len(source))}
    assert names == {"s.tar/up.png", "s.tar/etc/root.png", "s.tar/C:/x/y.png"}
    (note,) = [note for note in source.notes if note.startswith("left out")]
    assert "2 links" in note and "sparse file" in note and "2 special files" in note
    pack(source, tmp_path / "out.lmdb", PackSettings(resolution=8), workers=1)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out.lmdb"}


def test_a_tar_that_is_cut_short_or_damaged_is_refused(tmp_path):
    path = make_tar(tmp_path / "s.tar", samples(0, 4))
    content = path.read_bytes()
    path.write_bytes(content[:1550])
    with pytest.raises(DataError, match=r"cut short.*000001\.png"):
        find_source(path)
    path.write_bytes(content[:4096])  # between two files
    assert any("no end mark" in note for note in find_source(path).notes)
    path.write_bytes(content[:1030] + b"\xff" + content[1031:])
    with pytest.raises(DataError, match="byte 1,024"):
        find_source(path)
    path.write_bytes(content + content)
    assert any("what follows" in note for note in find_source(path).notes)


def header(name, size, kind=b"0"):
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(("size", "words"), (
    (b"\x80" + b"\xff" * 11, "cut short"), (b"\xff" * 12, "cut short"),
    (b"77777777777\0", "cut short"), (b"-1000000000\0", "cut short"), (b"99999999999\0", "byte 0"),
    (b"hello world\0", "byte 0"),
))  # fmt: skip
def test_sizes_that_lie(tmp_path, size, words):
    (tmp_path / "s.tar").write_bytes(header("a.png", size) + bytes(2048))
    with pytest.raises(DataError, match=words):
        find_source(tmp_path / "s.tar")


@pytest.mark.parametrize("kind", (b"L", b"x", b"K", b"g"))
def test_a_huge_header_is_refused_before_it_is_read(tmp_path, kind):
    with open(tmp_path / "s.tar", "wb") as file:
        file.write(header("long", b"%011o\0" % (3 << 30), kind))
        file.truncate(4 << 30)  # a hole: it takes no room
    with pytest.raises(DataError, match="made to do harm"):
        find_source(tmp_path / "s.tar")


def test_pictures_in_a_folder_called_like_cifar_are_pictures(tmp_path):
    for number, name in enumerate(("cifar10/0.png", "cifar-pictures/train/0.png", "cifar.png")):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            folder = tarfile.TarInfo("cifar10/")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            info, content = tarfile.TarInfo(name), picture()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        assert len(find_source(tmp_path / f"{number}.tar")) == 1


def test_a_loop_of_posix_lines_ends():
    for content in (
        b"0 path=x\n",
        b"3 a\n",
        b"99999999999999999999999 path=x\n",
        b"x\n",
        b"5 p=\n" * 9,
    ):
        assert isinstance(tar_shards._pax(content), dict)
    assert tar_shards._pax(b"12 path=a/b\n") == {"path": "a/b"}


def test_empty_entries_are_refused_after_the_first_20_000(tmp_path, monkeypatch):
    entry = header("x" * 20, b"%011o\0" % 0)
    with open(tmp_path / "s.tar", "wb") as file:
        file.write(entry * 40_000)  # refused at half of this
    seen = []
    monkeypatch.setattr(tar_shards, "_header_name", lambda block: seen.append(1) or "x")
    with pytest.raises(DataError, match="no shard of pictures"):
        find_source(tmp_path / "s.tar")
    assert len(seen) <= 20_001


@pytest.mark.slow
def test_a_picture_takes_about_100_bytes(tmp_path):
    count = 20_000
    with open(tmp_path / "s.tar", "wb") as file:
        for number in range(count):
            for suffix in ("png", "cls"):
                file.write(header(f"{number:09d}.{suffix}", b"%011o\0" % 1) + b"3" + bytes(511))
        file.write(bytes(1024))
    tracemalloc.start()
    try:
        source = tar_shards.TarPictures([tmp_path / "s.tar"], "s")
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(source) == count
    assert kept < 130 * count and most < 400 * count


@pytest.mark.parametrize(("name", "start", "tool"), (
    ("s.tar.gz", b"\x1f\x8b\x08\x00", "gunzip"), ("s.tar.zst", b"\x28\xb5\x2f\xfd", "unzstd"),
    ("s.tar.bz2", b"BZh9", "bunzip2"), ("s.tgz", b"\x1f\x8b\x08\x00", "gunzip"),
))  # fmt: skip
def test_compressed_ones_are_refused_with_the_command(tmp_path, name, start, tool):
    (tmp_path / name).write_bytes(start + bytes(100))
    with pytest.raises(DataError, match=tool):
        find_source(tmp_path / name)


def test_what_is_in_no_sample_is_counted(tmp_path):
    with pytest.raises(DataError, match="no picture") as found:
        find_source(
            make_tar(tmp_path / "s.tar", [("a.npy", b"x"), ("b.mp4", b"y"), ("c.cls", b"1")])
        )
    assert "mp4" in str(found.value)
    spoilt = make_tar(tmp_path / "t.tar", [("a.png", picture()), ("a.json", b"{" * 5000)])
    assert find_source(spoilt)[0].metadata == {"source": "t.tar/a.png"}
    with pytest.raises((DataError, UsageError, OSError)):
        find_source(tmp_path / "none.tar")


def test_a_pattern_that_the_shell_expanded_says_to_quote_it():
    result = CliRunner().invoke(app, ["pack", "s-000.tar", "s-001.tar", "s-002.tar"])
    assert result.exit_code == ExitCode.USAGE and "quote the pattern" in result.stderr
