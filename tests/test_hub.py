"""The hub: addresses, the cache, downloads that break off or lie, and repositories of strangers."""

import os
import stat

import pytest

pytest.importorskip("huggingface_hub")

from stylecli import hub
from stylecli.checkpoint import load_network, save_network
from stylecli.errors import DataError, NetworkError, StyleCLIError, UsageError
from stylecli.provenance import shown_path
from stylecli.workspace import find_network, missing
from tests.hub_server import READER, stand_in


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.time, "sleep", lambda seconds: None)
    with stand_in(monkeypatch) as found:
        yield found


@pytest.fixture
def content(tiny_network, tmp_path):
    save_network(tmp_path / "own.safetensors", tiny_network)
    return (tmp_path / "own.safetensors").read_bytes()


def address(text="hub:ann/cats"):
    return hub.parse_address(text)


def test_addresses_are_read_and_written():
    texts = ("hub:ann/cats", "hub:datasets/ann/cats", "hub:ann/cats@v1.0", "hub:a/b@refs/pr/1",
             "hub:ann/cats:runs/best.safetensors", "hub:a/c.a_t-s@main:x.safetensors")  # fmt: skip
    assert [str(address(text)) for text in texts] == list(texts)
    assert str(address("https://huggingface.co/ann/cats/")) == "hub:ann/cats"
    assert str(address("ann/cats")) == "hub:ann/cats"


@pytest.mark.parametrize("text", (
    "cats", "hub:", "hub:ann", "ann/cats/more", "../cats", "ann/..", "ann/c..s", "-ann/cats",
    "ann/cats.", "ann/ca--ts", "ann/cats@", "ann/cats@../x", "ann/cats:../x.safetensors",
    "ann/cats:/etc/x.safetensors", "ann/cats:a\\b.safetensors", "ann/ca ts", "änn/cats",
    "ann/cats:.hidden.safetensors", "models/ann/cats", "ann/cats:a/../b.safetensors",
))  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError) as found:
        address(text)
    assert "hub" in str(found.value)


def test_a_secret_in_an_address_is_not_repeated():
    with pytest.raises(UsageError) as found:
        address("hub:hf_abcdefgh@ann/cats")
    assert "hf_abcdefgh" not in str(found.value)


def test_a_network_is_fetched_once_and_used_without_the_hub(server, content, tmp_path):
    server.add("models/ann/cats", {"network.safetensors": content, "README.md": b"x"})
    steps = []
    found = find_network(
        hub.Path("hub:ann/cats"), progress=lambda done, all, note="": steps.append(done)
    )
    assert found.path.read_bytes() == content and steps[-1] == len(content) / 1e6
    assert "hub:ann/cats" in found.shown
    asked = len(server.asked)
    assert find_network(hub.Path("hub:ann/cats")).path == found.path
    assert load_network("hub:ann/cats").config.resolution == 16
    assert len(server.asked) == asked
    for path in (found.path, found.path.parent, found.path.parent.parent):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077
    commit = server.repositories["models/ann/cats"].commit
    assert shown_path(found.path) == f"hub:ann/cats@{commit}"
    assert find_network(hub.Path(f"hub:ann/cats@{commit}")).path == found.path
    assert len(server.asked) == asked


def test_pull_brings_the_newest(server, content):
    held = server.add("models/ann/cats", {"network.safetensors": content})
    first = hub.pull_network(address())
    held.version += 1
    assert hub.open_network(address()).commit == first.commit
    assert hub.pull_network(address()).commit == held.commit
    assert hub.open_network(address()).commit == held.commit


def test_a_small_file_is_compared_with_its_git_hash(server, content):
    held = server.add("models/ann/cats", {"net.safetensors": content}, regular={"net.safetensors"})
    assert hub.pull_network(address()).size == len(content)
    held.version += 1
    server.spoil = True
    with pytest.raises(NetworkError, match="SHA-256"):
        hub.pull_network(address())


def test_a_download_that_breaks_off_continues(server, content):
    server.add("models/ann/cats", {"network.safetensors": content})
    server.cut_after = [1000, 2000]
    record = hub.pull_network(address())
    assert hub.Path(record.path).read_bytes() == content
    assert len([path for _, path, _ in server.asked if path.startswith("/cdn/")]) == 3


def test_what_came_is_kept_for_the_next_command(server, content):
    server.add("models/ann/cats", {"network.safetensors": content})
    server.cut_after = [1000, 0, 0]
    with pytest.raises(NetworkError, match="run the same command to continue"):
        hub.pull_network(address())
    asked = []
    record = hub.pull_network(address(), progress=lambda done, all, note="": asked.append(done))
    assert hub.Path(record.path).read_bytes() == content
    assert not list(hub.Path(record.path).parent.glob("*.part"))


def test_another_file_than_stated_is_not_kept(server, content, tmp_path):
    server.add("models/ann/cats", {"network.safetensors": content})
    server.spoil = True
    with pytest.raises(NetworkError, match="SHA-256"):
        hub.pull_network(address())
    server.spoil, server.endless = False, True
    with pytest.raises(NetworkError, match="does not end"):
        hub.pull_network(address())
    assert (
        sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.*") if path.is_file()) < 9
    )
    server.endless = False
    assert hub.pull_network(address()).size == len(content)


def test_a_changed_file_in_the_cache_is_refused(server, content):
    server.add("models/ann/cats", {"network.safetensors": content})
    path = hub.Path(hub.pull_network(address()).path)
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(NetworkError, match="hub pull"):
        hub.open_network(address())
    assert hub.Path(hub.pull_network(address(), force=True).path).read_bytes() == content
    path.chmod(0o666)
    with pytest.raises(NetworkError, match="chmod"):
        hub.open_network(address())


HOSTILE = {
    "pickles alone": ({"a.pkl": b"x", "b.pt": b"y"}, {}, "pickles are not taken"),
    "climbing names": ({"../../x.safetensors": b"x", "/etc/y.safetensors": b"y"}, {}, "not taken"),
    "strange names": ({"a\x1b[2J.safetensors": b"x", "c:\\x.safetensors": b"y"}, {}, "not taken"),
    "nothing": ({}, {}, "it is empty"),
    "several": ({"a.safetensors": b"x", "b.safetensors": b"y"}, {}, "name one"),
    "too large": ({"network.safetensors": b"x"},
                  {"lfs": {"size": 1 << 50, "sha256": "0" * 64, "pointerSize": 1}}, "bytes"),
    "negative": ({"network.safetensors": b"x"},
                 {"lfs": {"size": -5, "sha256": "0" * 64, "pointerSize": 1}}, "bytes"),
    "no hash": ({"network.safetensors": b"x"}, {"lfs": None, "blobId": None}, "no hash"),
    "a hash that is a path": ({"network.safetensors": b"x"},
                              {"lfs": {"size": 5, "sha256": "../../../x", "pointerSize": 1}},
                              "no hash"),
    "no size": ({"network.safetensors": b"x"}, {"lfs": None, "size": None}, "cannot be used"),
    "words for numbers": ({"network.safetensors": b"x"},
                          {"lfs": {"size": "many", "sha256": "0" * 64, "pointerSize": 1}},
                          "cannot be used"),
    "another shape": ({"network.safetensors": b"x"}, {"lfs": [1]}, "cannot be used"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_repository_is_one_sentence(server, case, tmp_path):
    files, stated, words = HOSTILE[case]
    server.add("models/ann/cats", files, stated=dict.fromkeys(files, stated))
    with pytest.raises(NetworkError) as found:
        hub.pull_network(address())
    text = str(found.value)
    assert words in text and "\n" not in text and "\x1b" not in text and "Traceback" not in text
    assert not list(tmp_path.rglob("*x.safetensors"))
    assert not any("/resolve/" in path for _, path, _ in server.asked)


def test_a_file_of_several_can_be_named(server, content):
    server.add("models/ann/cats", {"a.safetensors": b"x", "runs/b.safetensors": content})
    named = address("ann/cats:runs/b.safetensors")
    assert hub.pull_network(named).size == len(content)
    assert hub.open_network(named).file == "runs/b.safetensors"
    with pytest.raises(NetworkError, match=r"a\.safetensors"):
        hub.pull_network(address("ann/cats:c.safetensors"))


def test_no_right_no_repository_no_revision(server, content, monkeypatch):
    server.add("models/ann/cats", {"network.safetensors": content}, private=True)
    with pytest.raises(NetworkError, match="hf auth login"):
        hub.pull_network(address())
    with pytest.raises(DataError, match="dataset"):
        hub.look_up(address("datasets/ann/dogs"))
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(NetworkError, match="no revision v2"):
        hub.pull_network(address("ann/cats@v2"))
    assert hub.pull_network(address()).size == len(content)
    to_others = [given for _, path, given in server.asked if path.startswith("/cdn/")]
    assert to_others == [None]  # the token stays with the hub
    everything = [path.read_bytes() for path in hub.cache_folder().rglob("*.json")]
    assert not any(READER.encode() in text for text in everything)


def test_offline_is_one_sentence(server, content, monkeypatch):
    from huggingface_hub import constants

    server.add("models/ann/cats", {"network.safetensors": content})
    hub.pull_network(address())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE"):
        hub.pull_network(address())
    assert hub.open_network(address()).size == len(content)  # what the cache has needs no hub
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://user:hf_secretsecret@127.0.0.1:9")
    with pytest.raises(NetworkError, match="cannot be reached") as found:
        hub.pull_network(address())
    assert "secret" not in str(found.value) and "\n" not in str(found.value)


def test_a_token_that_no_header_takes_is_not_printed(server, content, monkeypatch):
    server.add("models/ann/cats", {"network.safetensors": content})
    monkeypatch.setenv("HF_TOKEN", "hf_gehéim\u2028word")
    with pytest.raises(StyleCLIError) as found:
        hub.pull_network(address())
    assert "geh" not in str(found.value) and "word" not in str(found.value)


def test_a_full_disk_is_one_sentence(server, content, monkeypatch):
    from stylecli import files

    server.add("models/ann/cats", {"network.safetensors": content})
    monkeypatch.setattr(files, "_free_bytes", lambda path: 10)
    with pytest.raises(StyleCLIError, match="disk is full"):
        hub.pull_network(address())


def test_without_the_package_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"stylecli\[hub\]"):
        hub.pull_network(address("ann/never-fetched"))


def test_a_file_of_such_a_name_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("hub:ann")
    hub.Path("hub:ann/cats").write_bytes(b"x")
    assert not hub.is_address(hub.Path("hub:ann/cats"))
    assert hub.is_address("hub:ann/dogs")
    assert "hub pull hub:datasets/ann/x" in missing(hub.Path("hub:datasets/ann/x"), "", "dataset")
