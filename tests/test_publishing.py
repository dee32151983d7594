"""What goes to the hub: files, cards that say what is known, and back again."""

import json

import numpy as np
import pytest

pytest.importorskip("huggingface_hub")

from stylecli import hub
from stylecli.checkpoint import load_network, network_tensors, save_network
from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import pack
from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError, NetworkError, UsageError
from stylecli.files import OwnerLock
from stylecli.images import read_provenance, save_png
from stylecli.publishing import network_card, pull_dataset, push
from tests.hub_server import READER, WRITER, stand_in


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.time, "sleep", lambda seconds: None)
    with stand_in(monkeypatch, WRITER) as found:
        yield found


@pytest.fixture
def network(tiny_network, tmp_path):
    tiny_network.info |= {"kimg": 12.5, "data_digest": "ab" * 32}
    save_network(tmp_path / "cats.safetensors", tiny_network)
    return tmp_path / "cats.safetensors"


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(5):
        picture = random.integers(0, 255, (16, 16, 3), np.uint8)
        save_png(tmp_path / "photos" / f"{number}.png", picture)
    source = find_source(tmp_path / "photos")
    pack(source, tmp_path / "faces.lmdb", PackSettings(resolution=16), workers=1)
    return tmp_path / "faces.lmdb"


def header_of(card):
    yaml, _, _ = card.removeprefix("---\n").partition("\n---\n")
    return {key: json.loads(value) for key, _, value in
            (line.partition(": ") for line in yaml.splitlines())}  # fmt: skip


def test_a_network_goes_up_and_comes_back(server, network):
    done = push(network, "ann/cats", licence="CC BY 4.0", private=True)
    held = server.repositories["models/ann/cats"]
    assert set(held.files) == {"network.safetensors", "samples.png", "README.md"} and held.private
    assert done.pushed.commit == held.commit and done.pushed.page == f"{server.address}/ann/cats"
    again, own = load_network("hub:ann/cats"), load_network(network)
    wanted = network_tensors(own)
    assert all((wanted[name] == value).all() for name, value in network_tensors(again).items())
    assert again.info["licence"] == "CC BY 4.0" and again.D is not None
    card = held.files["README.md"].decode()
    head = header_of(card)
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "stylecli"
    assert "hub:ann/cats" in card and "12.5" in card and "ab" * 32 in card
    assert str(network.parent) not in card
    assert WRITER not in card


def test_the_sheet_names_the_network_where_everybody_finds_it(server, network, tmp_path):
    push(network, "ann/cats")
    (tmp_path / "sheet.png").write_bytes(
        server.repositories["models/ann/cats"].files["samples.png"]
    )
    record = read_provenance(tmp_path / "sheet.png")
    assert record["network"]["file"] == "hub:ann/cats"
    assert record["network"]["sha256"] == hub.pull_network(hub.parse_address("ann/cats")).sha256


def test_an_upload_that_broke_off_continues_without_sending_twice(server, network):
    server.refuse_uploads = [400]
    with pytest.raises(NetworkError, match="run the same command"):
        push(network, "ann/cats")
    assert not server.repositories["models/ann/cats"].files
    push(network, "ann/cats")
    sent = [path for method, path, _ in server.asked if method == "PUT"]
    server.asked.clear()
    commit = server.repositories["models/ann/cats"].commit
    push(network, "ann/cats")  # the same once more: nothing is sent, and no commit made
    assert len(sent) == 3
    assert not [path for method, path, _ in server.asked if method == "PUT"]
    assert server.repositories["models/ann/cats"].commit == commit


def test_what_the_hub_has_afterwards_is_compared(server, network):
    server.add("models/ann/cats", {}, stated={"network.safetensors": {"lfs": {
        "size": 1, "sha256": "0" * 64, "pointerSize": 1}}})  # fmt: skip
    with pytest.raises(NetworkError, match="another file on the hub"):
        push(network, "ann/cats")


def test_no_token_a_wrong_one_and_no_right(server, network, monkeypatch):
    for token, words in ((None, "nobody is logged in"), ("hf_unknowntoken", "token"),
                         (READER, "no right")):  # fmt: skip
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        else:
            monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(NetworkError, match=words) as found:
            push(network, "ann/cats")
        assert "hf auth login" in str(found.value) and str(token) not in str(found.value)
    assert not server.repositories


def test_a_dataset_goes_up_and_comes_back(server, dataset, tmp_path):
    push(dataset, "ann/faces")
    held = server.repositories["datasets/ann/faces"]
    assert held.files["data.mdb"] == (dataset / "data.mdb").read_bytes()
    card = held.files["README.md"].decode()
    assert header_of(card)["size_categories"] == ["n<1K"] and "pictures of 16 px" in card
    target = tmp_path / "datasets" / "faces.lmdb"
    server.cut_after = [9000, 0, 0]
    with pytest.raises(DataError, match="are kept"):
        pull_dataset(hub.parse_address("datasets/ann/faces"), target)
    assert not target.exists()
    found = pull_dataset(hub.parse_address("datasets/ann/faces"), target)
    assert len(found) == 5 and (target / "data.mdb").read_bytes() == held.files["data.mdb"]
    assert [path.name for path in target.parent.iterdir()] == ["faces.lmdb"]


def test_a_file_that_is_no_dataset_is_removed(server, dataset, tmp_path):
    content = bytearray((dataset / "data.mdb").read_bytes())
    server.add("datasets/ann/faces", {"data.mdb": bytes(content[:5000])})
    with pytest.raises(DataError, match="not used"):
        pull_dataset(hub.parse_address("datasets/ann/faces"), tmp_path / "new.lmdb")
    assert not (tmp_path / "new.lmdb").exists() and not (tmp_path / ".new.lmdb.pull").exists()


def test_files_can_be_looked_at_before_anything_is_sent(server, network, dataset, tmp_path):
    done = push(network, "ann/cats", into=tmp_path / "look")
    assert sorted(done.files) == sorted(path.name for path in (tmp_path / "look").iterdir())
    push(dataset, "ann/faces", into=tmp_path / "data")
    assert (tmp_path / "data" / "data.mdb").is_file() and not server.asked
    with pytest.raises(UsageError, match="exists"):
        push(network, "ann/cats", into=tmp_path / "look")


def test_into_leaves_nothing_of_what_cannot_be_read(server, tmp_path):
    (tmp_path / "spoilt.safetensors").write_bytes(b"none")
    with pytest.raises(NetworkError):
        push(tmp_path / "spoilt.safetensors", "ann/cats", into=tmp_path / "new" / "look")
    assert not list((tmp_path / "new").iterdir())


def test_a_dataset_that_another_command_pulls_is_left_to_it(server, dataset, tmp_path):
    push(dataset, "ann/faces")
    part = tmp_path / "new" / ".faces.lmdb.pull"
    part.mkdir(parents=True)
    other = OwnerLock(part)
    with pytest.raises(DataError, match="another command"):
        pull_dataset(hub.parse_address("datasets/ann/faces"), tmp_path / "new" / "faces.lmdb")
    other.release()
    pull_dataset(hub.parse_address("datasets/ann/faces"), tmp_path / "new" / "faces.lmdb").close()
    assert {path.name for path in (tmp_path / "new" / "faces.lmdb").iterdir()} <= {
        "data.mdb",
        "lock.mdb",
    }


def test_a_card_says_metrics_with_their_definitions_and_keeps_markup_out(tiny_network):
    rows = [{"name": "fid50k_full", "value": 3.25, "std": None, "higher_is_better": False,
             "definition": {"fakes": 50000, "features": "x|<b>\nnew"}}]  # fmt: skip
    facts = {"source": "a|b\n# heading <script>", "pictures": 40, "licences": {"CC0": 40}}
    card = network_card(hub.parse_address("ann/cats"), tiny_network, None, None, facts, rows)
    assert "| `fid50k_full` | 3.25 (lower is better) |" in card and "fakes 50000" in card
    assert "<script>" not in card and "\n# heading" not in card
    head = header_of(card)
    assert "license" not in head
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 3.25
    assert "40 training pictures" in card and "not stated" in card
