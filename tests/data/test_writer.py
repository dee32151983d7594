"""Datasets are whole or not there, and give back what was put in."""

import hashlib
import os
import signal
import tracemalloc

import lmdb
import numpy as np
import pytest

from stylecli.data import lmdb_files, unfinished
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter, SeenDigests
from stylecli.errors import DataError, UsageError


def random_pictures(count, channels=3, resolution=8):
    shape = (count, channels, resolution, resolution)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write(path, pictures, labels=None, **settings):
    channels, resolution = pictures.shape[1:3]
    with DatasetWriter(path, resolution=resolution, channels=channels, **settings) as writer:
        for index, pixels in enumerate(pictures):
            writer.add(pixels, None if labels is None else labels[index])
    return open_dataset(path)


@pytest.mark.parametrize("codec", ["raw", "png", "webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_codec_gives_back_the_same_pixels(tmp_path, codec, channels):
    pictures = random_pictures(3, channels)
    pictures[:, -1] = 0  # in RGBA: transparent, whose colours must survive all the same
    dataset = write(tmp_path / "a.lmdb", pictures, codec=codec)
    assert np.array_equal(dataset.read(range(3)), pictures)


def test_the_digest_depends_on_pixels_and_order_but_not_on_the_codec(tmp_path):
    pictures = random_pictures(3)
    digests = [
        write(tmp_path / "raw.lmdb", pictures).digest,
        write(tmp_path / "png.lmdb", pictures, codec="png", pyramid=True).digest,
        write(tmp_path / "turned.lmdb", pictures[::-1]).digest,
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_stored_pyramid_reads_like_a_computed_one(tmp_path):
    pictures = random_pictures(3, resolution=16)
    plain = write(tmp_path / "plain.lmdb", pictures)
    stored = write(tmp_path / "stored.lmdb", pictures, pyramid=True)
    assert stored.info["levels"] == 3
    for level in range(3):
        assert np.array_equal(stored.read([2, 0], level), plain.read([2, 0], level))


def test_the_map_grows_until_everything_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_files, "FIRST_MAP_BYTES", 1 << 16)
    pictures = random_pictures(40, resolution=32)
    assert np.array_equal(write(tmp_path / "a.lmdb", pictures).read(range(40)), pictures)


def test_a_failure_leaves_nothing_behind_and_what_stood_there_as_it_was(tmp_path):
    path = tmp_path / "a.lmdb"
    digest = write(path, random_pictures(2)).digest
    with (
        pytest.raises(ZeroDivisionError),
        DatasetWriter(path, resolution=8, channels=3, force=True) as writer,
    ):
        writer.add(random_pictures(1)[0])
        raise ZeroDivisionError
    assert open_dataset(path).digest == digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.lmdb"]


def test_replaces_only_by_force(tmp_path):
    path = tmp_path / "a.lmdb"
    kept_open = write(path, random_pictures(2))
    with pytest.raises(DataError, match="exists: give another --out, or --force"):
        DatasetWriter(path, resolution=8, channels=3)
    assert len(write(path, random_pictures(5), force=True)) == 5
    assert len(kept_open.read([0, 1])) == 2  # readers of the old one are not disturbed


def test_never_replaces_a_folder_of_something_else(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"precious")
    with pytest.raises(DataError, match="is not a dataset"):
        DatasetWriter(tmp_path / "photos", resolution=8, channels=3, force=True)
    assert (tmp_path / "photos" / "a.png").exists()


@pytest.mark.parametrize(
    ("labels", "kind", "label_dim"),
    [([0, 2, 1], "class", 3), (np.eye(3, 5, dtype=np.float32), "vector", 5), (None, None, 0)],
)
def test_labels_come_back_as_they_were(tmp_path, labels, kind, label_dim):
    dataset = write(tmp_path / "a.lmdb", random_pictures(3), labels)
    assert (dataset.info["label_kind"], dataset.label_dim) == (kind, label_dim)
    if labels is None:
        assert dataset.labels is None and dataset[0][1] is None
    else:
        assert np.array_equal(dataset.labels, labels) and np.array_equal(dataset[1][1], labels[1])


@pytest.mark.parametrize("labels", [[0, None, 1], [None, 1, 1], [0, np.zeros(2)], [-1, 0, 0]])
def test_refuses_labels_that_do_not_fit_together(tmp_path, labels):
    with pytest.raises(DataError, match="label"):
        write(tmp_path / "a.lmdb", random_pictures(len(labels)), labels)


@pytest.mark.parametrize("setting", [{"resolution": 12}, {"channels": 2}, {"codec": "jpeg"}])
def test_refuses_settings_no_network_could_use(tmp_path, setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        DatasetWriter(tmp_path / "a.lmdb", **{"resolution": 8, "channels": 3, **setting})


def test_refuses_a_picture_of_another_size(tmp_path):
    with (
        pytest.raises(
            DataError, match=r"picture 0 is uint8 \[3, 4, 4\]: expected uint8 \[3, 8, 8\]"
        ),
        DatasetWriter(tmp_path / "a.lmdb", resolution=8, channels=3) as writer,
    ):
        writer.add(np.zeros((3, 4, 4), np.uint8))


def test_keys_stand_in_the_order_of_the_pictures(tmp_path):
    write(tmp_path / "a.lmdb", random_pictures(300, 1, 4))
    with (
        lmdb.open(str(tmp_path / "a.lmdb"), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        keys = [key for key in transaction.cursor().iternext(values=False) if key[:2] == b"i/"]
    assert [int.from_bytes(key[2:], "big") for key in keys] == list(range(300))


def test_takes_over_from_a_command_that_was_killed(tmp_path):
    (tmp_path / "a.lmdb.part").mkdir()
    (tmp_path / "a.lmdb.part" / "data.mdb").write_bytes(b"half of it")
    assert len(write(tmp_path / "a.lmdb", random_pictures(2))) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.lmdb"]


def test_a_dataset_that_cannot_be_replaced_gets_its_name_back(tmp_path, monkeypatch):
    path = tmp_path / "a.lmdb"
    digest = write(path, random_pictures(2)).digest
    replace = os.replace

    def fail(source, target):
        if str(source).endswith(".part"):
            raise PermissionError(13, "Permission denied", str(target))
        replace(source, target)

    monkeypatch.setattr(unfinished.os, "replace", fail)
    with pytest.raises(PermissionError):
        write(path, random_pictures(5), force=True)
    assert open_dataset(path).digest == digest
    assert not unfinished.replaced_path(path).exists()


def pack_and_die(path, pictures, before, **options):
    """Replace a dataset in a process that is killed just before its renaming number ``before``."""
    child = os.fork()
    if child == 0:
        calls, replace = [], os.replace

        def deadly(source, target):
            calls.append(source)
            if len(calls) == before:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        unfinished.os.replace = deadly
        if before == 3:
            unfinished.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        write(path, pictures, force=True, **options)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("identity", [None, {"kind": "test"}])
def test_a_kill_while_replacing_loses_nothing_and_the_same_command_continues(
    tmp_path, before, identity
):
    path, new = tmp_path / "a.lmdb", random_pictures(5)
    old = write(path, random_pictures(2)).digest
    options = {"identity": identity, "info": {"settings": identity}} if identity else {}
    pack_and_die(path, new, before, **options)
    kept = [p for p in (path, unfinished.replaced_path(path)) if p.exists()]
    assert old in {open_dataset(p).digest for p in kept} or before == 3
    with DatasetWriter(path, resolution=8, channels=3, force=True, **options) as writer:
        for pixels in new[writer.position :]:
            writer.add(pixels)
    assert len(open_dataset(path)) == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.lmdb"]


def test_other_work_finds_the_old_dataset_in_its_place_after_such_a_kill(tmp_path):
    path = tmp_path / "a.lmdb"
    old = write(path, random_pictures(2)).digest
    settings = {"kind": "test"}
    pack_and_die(path, random_pictures(5), 2, identity=settings, info={"settings": settings})
    other = {"kind": "other"}
    with pytest.raises(DataError, match="started with other kind"):
        DatasetWriter(path, resolution=8, channels=3, identity=other, info={"settings": other})
    assert open_dataset(path).digest == old


def test_replacing_keeps_links_and_modes(tmp_path):
    real = tmp_path / "large disk" / "a.lmdb"
    write(real, random_pictures(2))
    os.chmod(real / "data.mdb", 0o600)
    os.chmod(real, 0o700)
    (tmp_path / "a.lmdb").symlink_to(real)
    assert len(write(tmp_path / "a.lmdb", random_pictures(5), force=True)) == 5
    assert (tmp_path / "a.lmdb").is_symlink() and len(open_dataset(real)) == 5
    modes = [path.stat().st_mode & 0o777 for path in (real, real / "data.mdb")]
    assert modes == [0o700, 0o600]


def test_the_umask_decides_who_may_write(tmp_path):
    before = os.umask(0o002)
    try:
        write(tmp_path / "a.lmdb", random_pictures(2))
    finally:
        os.umask(before)
    assert (tmp_path / "a.lmdb" / "data.mdb").stat().st_mode & 0o777 == 0o664


def digest(number):
    return hashlib.sha256(b"%d" % number).digest()


def test_finds_the_first_of_equal_digests():
    seen = SeenDigests()
    for number in (*range(5000), 7):
        seen.append(digest(number))
    assert len(seen) == 5001
    assert [seen.find(digest(number)) for number in (7, 4999, 5000)] == [7, 4999, None]


def test_goes_on_from_stored_digests():
    seen = SeenDigests(digest(1) + digest(2))
    seen.append(digest(3))
    assert [seen.find(digest(number)) for number in (1, 2, 3, 4)] == [0, 1, 2, None]


def test_digests_of_equal_beginnings_are_told_apart():
    one, other = bytes(31) + b"\1", bytes(31) + b"\2"
    seen = SeenDigests(one + other)
    assert (seen.find(one), seen.find(other), seen.find(bytes(32))) == (0, 1, None)


def test_takes_under_a_hundred_bytes_a_picture():
    tracemalloc.start()
    seen = SeenDigests(b"".join(map(digest, range(20_000))))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seen) == 20_000 and taken < 100 * 20_000
