"""The working directory: which run, network and dataset a bare command takes."""

import json
import os
from pathlib import Path

import pytest

from stylecli import shipped
from stylecli.errors import DataError, NetworkError
from stylecli.workspace import (
    find_dataset,
    find_network,
    find_run,
    list_runs,
    list_sheets,
    list_snapshots,
    newest_run,
    newest_snapshot,
    next_run,
    read_run,
    run_dataset,
    runs_newest_first,
    saved_at,
    sheet_path,
    snapshot_path,
    sweep_leftovers,
)


def make_run(run: Path, *kimg: int, age: float = 0.0, dataset: str | None = None) -> Path:
    """Make a run folder with empty snapshots, ``age`` seconds old."""
    run.mkdir(parents=True)
    settings = {"dataset": {"path": dataset}} if dataset else {}
    (run / "run.json").write_text(json.dumps(settings))
    os.utime(run / "run.json", (1e9 - age, 1e9 - age))
    for thousands in kimg:
        snapshot = run / f"network-snapshot-{thousands * 1000:09d}.safetensors"
        snapshot.touch()
        os.utime(snapshot, (1e9 - age, 1e9 - age))
    return run


def make_dataset(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_a_given_file_is_taken_without_a_word(tmp_path: Path) -> None:
    network = tmp_path / "mine.safetensors"
    network.touch()

    found = find_network(network, root=tmp_path)

    assert (found.path, found.why) == (network, "")


def test_a_given_run_means_its_newest_network(tmp_path: Path) -> None:
    run = make_run(tmp_path / "elsewhere", 20, 100, 3)

    found = find_network(run)

    assert found.path.name == "network-snapshot-000100000.safetensors"
    assert str(run) in found.why


def test_without_a_word_the_run_with_the_newest_network_is_taken(tmp_path: Path) -> None:
    newest = make_run(tmp_path / "runs" / "00000-faces", 1, age=5)
    make_run(tmp_path / "runs" / "00001-cats", 9, age=50)
    make_run(tmp_path / "runs" / "00002-empty")
    make_run(tmp_path / "demo" / "run", 9, age=0)

    assert find_run(tmp_path) == newest


def test_the_demo_is_used_where_there_are_no_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "00000-empty")
    demo = make_run(tmp_path / "demo" / "run", 9)

    assert find_network(root=tmp_path).path.parent == demo


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("gone.safetensors", "gone.safetensors does not exist"),
        ("runs/00000-empty", "holds no network yet"),
    ],
)
def test_no_network_is_told_with_the_way_to_one(tmp_path: Path, network: str, message: str) -> None:
    make_run(tmp_path / "runs" / "00000-empty")

    with pytest.raises(NetworkError, match=message):
        find_network(tmp_path / network, root=tmp_path)


def test_where_nothing_is_trained_the_shipped_network_is_taken(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "00000-empty")

    found = find_network(root=tmp_path)

    assert found.path == shipped.shipped_network()
    assert "the network that comes with stylecli" in found.why


def test_the_shipped_network_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "00000-faces", 9)
    assert find_network(Path("shipped")).path == shipped.shipped_network()

    Path("shipped").touch()  # a file of that name comes first
    assert find_network(Path("shipped")).path == Path("shipped")


def test_a_copy_without_a_shipped_network_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "shipped_network", lambda: None)

    with pytest.raises(NetworkError, match="run stylecli demo or stylecli train, or give"):
        find_network(root=tmp_path)


def test_a_run_brings_its_own_dataset_wherever_the_workspace_was_moved(tmp_path: Path) -> None:
    make_dataset(tmp_path / "before" / "datasets" / "faces.lmdb")
    make_dataset(tmp_path / "before" / "datasets" / "cats.lmdb")
    make_run(tmp_path / "before" / "runs" / "00000-x", dataset="../../datasets/faces.lmdb")
    moved = (tmp_path / "before").rename(tmp_path / "after")

    found = find_dataset(root=moved, run=moved / "runs" / "00000-x")

    assert found.path == moved / "datasets" / "faces.lmdb"
    assert "the dataset of" in found.why


def test_the_only_dataset_is_taken(tmp_path: Path) -> None:
    only = make_dataset(tmp_path / "datasets" / "faces.lmdb")
    make_dataset(tmp_path / "demo" / "dataset.lmdb")

    assert find_dataset(root=tmp_path).path == only


def test_of_several_datasets_none_is_guessed(tmp_path: Path) -> None:
    make_dataset(tmp_path / "datasets" / "cats.lmdb")
    make_dataset(tmp_path / "datasets" / "faces.lmdb")

    with pytest.raises(DataError, match=r"2 datasets \(.*cats.*faces.*\): .* such as .*cats\.lmdb"):
        find_dataset(root=tmp_path)


@pytest.mark.parametrize(
    ("data", "message"), [(None, "there is no dataset"), ("gone.lmdb", "gone.lmdb does not exist")]
)
def test_no_dataset_is_told_with_the_way_to_one(
    tmp_path: Path, data: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=f"{message}.*stylecli pack"):
        find_dataset(tmp_path / data if data else None, root=tmp_path)


def test_an_unfinished_dataset_is_told_how_to_finish(tmp_path: Path) -> None:
    make_dataset(tmp_path / "cats.lmdb.part")
    (tmp_path / "cats.lmdb.part" / "data.mdb").touch()

    with pytest.raises(DataError, match=r"cats.lmdb is unfinished .*: run the same stylecli pack"):
        find_dataset(tmp_path / "cats.lmdb")


def test_a_dataset_that_has_gone_is_not_the_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "00000-x", dataset="../../datasets/gone.lmdb")

    assert run_dataset(run) is None


def test_runs_are_numbered_on_and_other_folders_ignored(tmp_path: Path) -> None:
    for name in ("00007-cats", "00002", "notes", "123-short"):
        (tmp_path / "runs" / name).mkdir(parents=True)

    assert [run.name for run in list_runs(tmp_path)] == ["00002", "00007-cats"]
    assert next_run("faces", tmp_path) == tmp_path / "runs" / "00008-faces"
    assert next_run("faces", tmp_path / "empty").name == "00000-faces"


def test_a_run_without_snapshots_has_none(tmp_path: Path) -> None:
    assert newest_snapshot(make_run(tmp_path / "run")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "is not a run"), ("{", "is not readable"), ("[1]", "holds a list")],
)
def test_a_damaged_run_is_told_in_a_sentence(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)

    with pytest.raises(NetworkError, match=message):
        read_run(tmp_path)


def test_what_killed_commands_left_is_swept_and_unfinished_work_is_not(tmp_path: Path) -> None:
    left = [".a-abcd1234.part", "runs/00000-x/.checkpoint-abcd1234.part", "mine/.b-abcd1234.part",
            "datasets/.a.lmdb.replaced"]  # fmt: skip
    kept = ["datasets/a.lmdb", "datasets/b.lmdb.part", "datasets/.c.lmdb.replaced",
            "datasets/.a.lmdb.mine.replaced", "deep/er/folder/.x-abcd1234.part"]  # fmt: skip
    for name in [*left, *kept]:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "data.mdb").touch()
    sweep_leftovers(tmp_path)
    assert not [name for name in left if (tmp_path / name).exists()]
    assert [name for name in kept if (tmp_path / name).exists()] == kept
    sweep_leftovers(tmp_path / "none")


def test_only_names_that_training_gives_are_its_snapshots_and_sheets(tmp_path: Path) -> None:
    """Sorted by images shown, which outgrow nine digits; files of other names are the user's."""
    for nimg in (2_000_000_000, 90, 100):
        snapshot_path(tmp_path, nimg).touch()
        sheet_path(tmp_path, nimg).touch()
    for name in ("network-snapshot-7.safetensors", "network-snapshot-x.safetensors", "fakes7.png",
                 "fakes.png", "network-snapshot-000000008.safetensors.bak"):  # fmt: skip
        (tmp_path / name).touch()
        assert saved_at(name) is None
    assert [saved_at(path.name) for path in list_snapshots(tmp_path)] == [90, 100, 2_000_000_000]
    assert list_sheets(tmp_path) == [sheet_path(tmp_path, n) for n in (90, 100, 2_000_000_000)]
    assert newest_snapshot(tmp_path) == snapshot_path(tmp_path, 2_000_000_000)


def test_all_commands_mean_the_same_newest_run(tmp_path: Path) -> None:
    """Those that need a network take the first of this order that has one."""
    old = make_run(tmp_path / "runs" / "00000-faces", 1, age=500)
    last = make_run(tmp_path / "runs" / "00001-cats", 9, age=50)
    begun = tmp_path / "runs" / "00002-begun"
    demo = make_run(tmp_path / "demo" / "run", 9, age=0)
    for run, age in ((old, 500), (last, 50), (begun, 5), (demo, 0)):
        run.mkdir(exist_ok=True)
        (run / "run.json").write_text("{}")
        when = (run / "run.json").stat().st_mtime - age
        os.utime(run / "run.json", (when, when))

    assert runs_newest_first(tmp_path) == [begun, last, old, demo]
    assert newest_run(tmp_path) == begun
    assert find_run(tmp_path) == last


def test_a_folder_of_runs_where_one_is_meant_names_the_newest(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "00000-faces", age=50)
    make_run(tmp_path / "runs" / "00001-cats", age=5)

    for refuse in (find_network, read_run):
        with pytest.raises(NetworkError, match=r"2 runs.*00001-cats"):
            refuse(tmp_path / "runs")
