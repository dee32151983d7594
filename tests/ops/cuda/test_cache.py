"""The folder of compiled kernels: found again, never trusted blindly, never in the way."""

import os

import pytest

from stylecli.ops.cuda import compiler as cubin_cache
from stylecli.ops.cuda.compiler import (
    Compiled,
    Resources,
    cache_key,
    compile_cached,
    decode,
    encode,
    kernel_folder,
)

KERNELS = ("twice<float>",)


class Compiler:
    """Stands in for NVRTC and counts."""

    def __init__(self):
        self.calls = 0

    def __call__(self, source, template_ids, architecture):
        self.calls += 1
        resources = {name: Resources(20, 0, 0, 64) for name in template_ids}
        return Compiled(architecture, source.encode(), dict.fromkeys(template_ids, "_Z"), resources)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    return Compiler()


def fetch(compiler, source="text", architecture="sm_90", version="13.0", kernels=KERNELS):
    return compile_cached(
        source, kernels, architecture, nvrtc_version=version, compile_kernels=compiler
    )


def test_the_second_time_nothing_is_compiled(compiler):
    assert fetch(compiler) == fetch(compiler)
    assert compiler.calls == 1


def test_anything_that_decides_the_code_is_in_the_key(compiler, monkeypatch):
    changed = (
        {"source": "other"},
        {"architecture": "sm_80"},
        {"version": "13.1"},
        {"kernels": ("a", "b")},
    )
    fetch(compiler)
    for change in changed:
        fetch(compiler, **change)
    monkeypatch.setitem(cubin_cache.OPTIONS, "std", "c++20")
    fetch(compiler)
    assert compiler.calls == 6


def test_names_do_not_run_into_one_another():
    assert cache_key("s", ("a", "b"), "sm_90", "13.0") != cache_key("s", ("ab",), "sm_90", "13.0")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"",
        lambda content: b"something else entirely",
        lambda content: cubin_cache.FIRST_LINE + b"no digest",
    ],
    ids=["short", "flipped", "empty", "foreign", "half"],
)
def test_a_damaged_file_is_made_again(compiler, damage):
    fresh = fetch(compiler)
    (file,) = kernel_folder().iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert fetch(compiler) == fresh
    assert fetch(compiler) == fresh
    assert compiler.calls == 2


def test_a_file_in_place_of_the_folder_is_no_obstacle(compiler, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    assert fetch(compiler).cubin == b"text"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_an_unwritable_folder_is_no_obstacle(compiler):
    kernel_folder().mkdir(parents=True)
    kernel_folder().chmod(0o500)
    assert fetch(compiler).cubin == b"text"
    assert list(kernel_folder().iterdir()) == []


def test_a_machine_without_home_is_no_obstacle(compiler, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cubin_cache, "cache_folder", homeless)
    assert fetch(compiler).cubin == b"text"


def test_what_was_read_longest_ago_goes_first(compiler, monkeypatch):
    for index, source in enumerate(("first", "second", "third")):
        fetch(compiler, source)
        newest = max(kernel_folder().iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (index, index))
    size = newest.stat().st_size
    fetch(compiler, "first")  # read now
    monkeypatch.setattr(cubin_cache, "MAX_BYTES", 3 * size + 10)
    fetch(compiler, "fourth")
    assert compiler.calls == 4
    left = {decode(path.read_bytes()).cubin for path in kernel_folder().iterdir()}
    assert left == {b"first", b"third", b"fourth"}


def test_encoding_keeps_everything_and_refuses_the_rest():
    kept = Compiled("sm_90", b"\x7fELF\n\n\x00", {"a<1>": "_Za"}, {"a<1>": Resources(1, 2, 3, 4)})
    assert decode(encode(kept)) == kept
    with pytest.raises(ValueError, match="not a file of compiled kernels"):
        decode(b"pickle")
