"""A whole check: every planted fault is found, and a clean set has none."""

import json

import lmdb
import numpy as np
import pytest
from PIL import Image

from stylecli.data.checking.inspection import Inspection
from stylecli.data.format import LABELS_KEY, META_KEY, image_key, label_key, metadata_key
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError
from tests.data.checking.pictures import brighten, draw, encode_again, pixels_of

NAMES = ["cat", "dog"]


def write(path, pictures, labels=None, **settings):
    settings = {
        "resolution": 32,
        "channels": 3,
        "class_names": NAMES if labels else None,
    } | settings
    with DatasetWriter(path, **settings) as writer:
        for index, picture in enumerate(pictures):
            writer.add(pixels_of(picture), labels[index] if labels else None)
    return path


@pytest.fixture
def pictures():
    """60 different pictures, 32 px."""
    return [draw(seed, 32) for seed in range(60)]


@pytest.fixture
def inspect(monkeypatch):
    """Check a path; small sets are as good as large ones here."""
    monkeypatch.setattr("stylecli.data.checking.judgement.FEW_PICTURES", 1)
    monkeypatch.setattr("stylecli.data.checking.judgement.SMALL_CLASS", 1)

    def run(path, out=None, **options):
        with Inspection(path, **options) as inspection:
            inspection.scan(workers=1)
            inspection.compare()
            return inspection.report(out)

    return run


def change(path, edit):
    """Let ``edit`` write into the database behind the dataset's back."""
    with lmdb.open(str(path), lock=False) as database, database.begin(write=True) as transaction:
        edit(transaction)


def found(report):
    return {problem.kind: (problem.severity, problem.count) for problem in report.problems}


def test_a_clean_dataset_has_no_problem(tmp_path, pictures, inspect):
    path = write(tmp_path / "a.lmdb", pictures, [i % 2 for i in range(60)], pyramid=True)
    report = inspect(path)

    assert report.problems == [] and report.usable and report.complete
    assert report.facts["classes"] == {"cat": 30, "dog": 30}


def test_a_flipped_bit_is_found(tmp_path, pictures, inspect):
    path = write(tmp_path / "a.lmdb", pictures)

    def flip(transaction):
        stored = bytearray(transaction.get(image_key(7)))
        stored[100] ^= 1
        transaction.put(image_key(7), bytes(stored))

    change(path, flip)
    report = inspect(path)

    assert found(report) == {"damaged-pixels": ("error", 1)}
    assert report.problems[0].names == ["#7 its pixels differ from its digest"]
    assert not report.usable


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (lambda t: t.put(label_key(3), b"\0" * 8), "damaged-label"),
        (lambda t: t.put(LABELS_KEY, b"\0" * 8), "damaged-labels"),
        (lambda t: t.put(image_key(3, 1), bytes(3 * 16 * 16)), "damaged-level"),
        (lambda t: t.put(metadata_key(3), b"{"), "damaged-metadata"),
        (lambda t: t.delete(image_key(3)), "damaged-pixels"),
    ],
    ids=["label", "labels", "level", "metadata", "missing"],
)
def test_damage_is_found(tmp_path, pictures, inspect, edit, kind):
    path = write(tmp_path / "a.lmdb", pictures, [i % 2 for i in range(60)], pyramid=True)
    change(path, edit)

    assert list(found(inspect(path))) == [kind]


def test_a_wrong_digest_of_the_whole_is_found(tmp_path, pictures, inspect):
    path = write(tmp_path / "a.lmdb", pictures)

    def swap(transaction):
        header = json.loads(transaction.get(META_KEY))
        transaction.put(META_KEY, json.dumps(header | {"digest": "0" * 64}).encode())

    change(path, swap)

    assert found(inspect(path)) == {"damaged-digest": ("error", 1)}


def test_duplicates_plain_dark_and_barred_pictures_are_found(tmp_path, pictures, inspect):
    letterboxed = Image.new("RGB", (64, 64))
    letterboxed.paste(draw(900).resize((64, 44)), (0, 10))
    planted = [
        pictures[4],
        brighten(encode_again(pictures[5], 95)),
        Image.new("RGB", (64, 64), "red"),
        pictures[6].point(lambda level: level // 16),
        letterboxed,
    ]
    everything = [picture.resize((64, 64), Image.Resampling.BICUBIC) for picture in pictures]
    everything += [picture.resize((64, 64), Image.Resampling.BICUBIC) for picture in planted]
    report = inspect(write(tmp_path / "a.lmdb", everything, resolution=64), tmp_path / "check")

    assert found(report) == {
        "duplicates": ("warning", 1),
        "near-duplicates": ("warning", 2),
        "blank": ("warning", 1),
        "dark": ("warning", 1),
        "bars": ("warning", 1),
    }
    assert report.facts["exact_duplicates"] == [["#4", "#60"]]
    assert report.facts["near_duplicates"] == [["#5", "#61"]]
    files = ["mean.png", "samples.png", "near-duplicates.png", "check.json"]
    assert report.files == [str(tmp_path / "check" / name) for name in files]
    assert all((tmp_path / "check" / name).is_file() for name in files)


def test_grey_in_colour_and_uneven_classes_are_found(tmp_path, pictures, inspect):
    grey = [picture.convert("L").convert("RGB") for picture in pictures]
    path = write(tmp_path / "a.lmdb", grey, [0] * 58 + [1] * 2, class_names=[*NAMES, "fish"])

    assert found(inspect(path)) == {
        "empty-classes": ("warning", 1),
        "imbalance": ("warning", 2),
        "grey-as-colour": ("warning", 60),
    }


def test_few_pictures_are_said_to_be_few(tmp_path, pictures):
    with Inspection(write(tmp_path / "a.lmdb", pictures)) as inspection:
        inspection.scan(workers=1)
        (problem,) = inspection.report().problems

    assert problem.kind == "few-pictures" and problem.fix.endswith("a.lmdb --mirror")


def test_a_folder_is_judged_by_what_packing_would_meet(tmp_path, pictures, inspect):
    folder = tmp_path / "photos"
    for index, picture in enumerate(pictures):
        path = folder / NAMES[index % 2] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((64, 64)).save(path)
    (folder / "cat" / "torn.png").write_bytes((folder / "cat" / "000.png").read_bytes()[:300])
    (folder / "cat" / "words.jpg").write_text("no picture")
    pictures[1].save(folder / "dog" / "tiny.png")
    exif = Image.Exif()
    exif[274] = 6
    pictures[2].resize((64, 64)).rotate(90).save(folder / "dog" / "turned.jpg", exif=exif)
    report = inspect(folder)

    assert found(report) == {
        "unusable": ("warning", 2),
        "near-duplicates": ("warning", 2),
        "too-small": ("warning", 1),
        "rotated": ("note", 1),
    }
    unusable = next(problem for problem in report.problems if problem.kind == "unusable")
    assert unusable.names[1] == "cat/words.jpg is not a picture of a known kind"
    assert report.usable and report.facts["classes"] == {"cat": 30, "dog": 32}
    assert report.facts["shorter_side"]["smallest"] == {"size": [32, 32], "name": "dog/tiny.png"}


def test_a_folder_without_a_usable_picture_is_an_error(tmp_path, inspect):
    (tmp_path / "a.png").write_text("nothing")

    assert found(inspect(tmp_path)) == {"unusable": ("error", 1)}


def test_several_processes_find_the_same(tmp_path, pictures):
    path = write(tmp_path / "a.lmdb", pictures * 5, [i % 2 for i in range(300)])
    reports = []
    for workers in (1, 2):
        with Inspection(path) as inspection:
            inspection.scan(workers=workers)
            inspection.compare()
            reports.append(inspection.report().to_dict())

    assert reports[0] == reports[1]


def test_quick_looks_at_a_sample_spread_evenly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 3, 8, 8), dtype=np.uint8)
    path = tmp_path / "a.lmdb"
    with DatasetWriter(path, resolution=8, channels=3) as writer:
        for picture in pixels:
            writer.add(picture)
    with Inspection(path, quick=True) as inspection:
        inspection.scan(workers=1)
        inspection.compare()
        report = inspection.report()

    assert report.facts["looked_at"] == 500 and not report.complete
    assert report.facts["near_duplicates"] is None


def test_an_interrupted_check_reports_what_it_saw(tmp_path, pictures):
    path = write(tmp_path / "a.lmdb", pictures * 10)

    def stop(done, total, note=""):
        raise KeyboardInterrupt

    with Inspection(path) as inspection:
        with pytest.raises(KeyboardInterrupt):
            inspection.scan(workers=1, progress=stop)
        report = inspection.report()

    assert 0 < report.facts["looked_at"] < 600 and not report.complete


def test_an_unfinished_dataset_is_named_as_such(tmp_path):
    part = tmp_path / "a.lmdb.part"
    with lmdb.open(str(part), lock=False) as database, database.begin(write=True) as transaction:
        transaction.put(image_key(0), b"x")

    with pytest.raises(DataError, match=r"unfinished dataset.*stylecli pack"):
        Inspection(part)


def test_a_wide_picture_is_not_grey_for_what_lies_in_its_middle(tmp_path, inspect):
    """--transform subject may cut elsewhere, and --channels 1 takes all colour away."""
    (tmp_path / "wide").mkdir()
    for number in range(3):
        picture = Image.new("RGB", (300, 100), (90 + number, 90 + number, 90 + number))
        picture.paste((200, 40, 40), (10, 10, 90, 90))
        picture.save(tmp_path / "wide" / f"{number}.png")

    assert "grey-as-colour" not in found(inspect(tmp_path / "wide"))
