"""What NVRTC makes of every kernel for every architecture; and the folder of compiled kernels.

The compiler's log is read and its errors are told. The folder is found again, never trusted
blindly, never in the way.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec

import pytest

from stylecli.errors import DeviceError
from stylecli.ops.cuda import compiler
from stylecli.ops.cuda.compiler import (
    Compiled,
    Resources,
    architecture_for,
    cache_key,
    compile_cached,
    compile_kernels,
    decode,
    encode,
    kernel_folder,
    parse_log,
)
from tests.ops.cuda import compile_gate

# ---- the compiler


needs_nvrtc = pytest.mark.skipif(
    find_spec("cuda") is None or compiler.nvrtc_problem() is not None,
    reason="KERNELS NOT COMPILED: no NVRTC on this machine. pip install 'stylecli[dev]' runs these",
)
needs_disassembler = pytest.mark.skipif(
    compile_gate.disassembler() is None,
    reason="MACHINE CODE NOT READ: no nvdisasm on this machine. pip install 'stylecli[dev]'",
)


def gate(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of all that is compiled, which one process compiles."""
    return pytest.mark.xdist_group("compiler")(pytest.mark.slow(test))


SMALL = "template <typename T> __global__ void twice(T* x) { x[threadIdx.x] *= T(2); }"


@pytest.fixture(scope="session")
def compiled():
    """Return every kernel for every architecture: a minute on two cores, for the gate below."""
    return compile_gate.compile_all()


@needs_nvrtc
@gate
def test_no_kernel_spills_or_uses_local_memory_on_any_architecture(compiled):
    wrong = [
        f"{one.architecture} {name}: {taken}"
        for one in compiled
        for name, taken in one.resources.items()
        if taken.spill_bytes or taken.stack_bytes
    ]
    assert wrong == []
    assert all(set(one.resources) == set(compile_gate.EVERY_KERNEL) for one in compiled)


@needs_nvrtc
@gate
def test_every_kernel_keeps_its_limit_of_registers(compiled):
    wrong = [
        f"{one.architecture} {name}: {taken.registers}"
        for one in compiled
        for name, taken in one.resources.items()
        if taken.registers > compile_gate.register_limit(name)
    ]
    assert wrong == []


@needs_nvrtc
@gate
def test_static_shared_memory_fits_every_gpu(compiled):
    most = max(taken.shared_bytes for one in compiled for taken in one.resources.values())
    assert most <= 48 * 1024


@needs_nvrtc
@needs_disassembler
@gate
def test_kernels_move_128_bits_at_a_time_where_promised(compiled):
    ampere = compiled[compile_gate.ARCHITECTURES.index("sm_80")]
    counts = compile_gate.memory_instructions(ampere, compile_gate.disassembler())
    assert [
        name
        for name in counts
        if compile_gate.promises_wide_loads(name) != ("LDG.128" in counts[name])
    ] == []
    assert [
        name
        for name in counts
        if compile_gate.promises_wide_stores(name) and not counts[name]["STG.128"]
    ] == []
    assert sum(count["LDL"] + count["STL"] for count in counts.values()) == 0


@needs_nvrtc
def test_compiles_a_template_and_tells_what_it_takes():
    found = compile_kernels(SMALL, ["twice<float>", "twice<int>"], "sm_80")
    assert found.architecture == "sm_80" and found.cubin[:4] == b"\x7fELF"
    assert set(found.symbols) == set(found.resources) == {"twice<float>", "twice<int>"}
    assert found.symbols["twice<float>"].encode() in found.cubin
    assert 1 < found.resources["twice<float>"].registers < 30


@needs_nvrtc
def test_a_source_that_does_not_compile_is_one_sentence():
    with pytest.raises(DeviceError, match=r"refused the kernels for sm_80: .*error: .*undefined"):
        compile_kernels(SMALL.replace("T(2)", "two"), ["twice<float>"], "sm_80")


@needs_nvrtc
def test_an_architecture_that_nvrtc_does_not_know_is_refused():
    with pytest.raises(DeviceError, match=r"refused the kernels for sm_10: .*gpu-architecture"):
        compile_kernels(SMALL, ["twice<float>"], "sm_10")


def test_reads_registers_spills_and_shared_memory_from_the_log():
    log = """
ptxas info    : Compiling entry function '_Z1aPf' for 'sm_90'
ptxas info    : Function properties for _Z1aPf
ptxas         .     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 33 registers, used 1 barriers, 8 bytes cumulative stack size, 512 bytes smem
ptxas info    : Compiling entry function '_Z1bPf' for 'sm_90'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 9 registers, used 0 barriers
"""
    assert parse_log(log) == {
        "_Z1aPf": compiler.Resources(33, 8, 16, 512),
        "_Z1bPf": compiler.Resources(9, 0, 0, 0),
    }


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [((8, 0), "sm_80"), ((8, 9), "sm_89"), ((8, 8), "sm_86"), ((12, 1), "sm_120")],
)
def test_takes_the_newest_architecture_that_the_gpu_runs(capability, architecture):
    assert architecture_for(capability, (75, 80, 86, 89, 90, 120)) == architecture


@pytest.mark.parametrize("capability", [(7, 0), (10, 0)])
def test_a_gpu_that_nvrtc_does_not_serve_is_told(capability):
    with pytest.raises(DeviceError, match="compiles for sm_75, sm_80, sm_90: the GPU is sm_"):
        architecture_for(capability, (75, 80, 90))


def test_a_missing_library_is_named_with_the_package_that_brings_it(monkeypatch):
    def missing():
        raise RuntimeError("Failure finding libnvrtc.so.13\nmore")

    monkeypatch.setattr(compiler, "find_spec", lambda name: True)
    monkeypatch.setattr(compiler, "nvrtc_version", missing)
    for bindings, driver, package in (
        ("13.5.0", None, "'nvidia-cuda-nvrtc==13.*'"),
        ("12.9.4", 13, "nvidia-cuda-nvrtc-cu12"),
        ("13.5.0", 12, "'cuda-bindings==12.*' nvidia-cuda-nvrtc-cu12"),
    ):
        monkeypatch.setattr(compiler, "_driver_major", lambda driver=driver: driver)
        monkeypatch.setattr(compiler, "version", lambda name, bindings=bindings: bindings)
        assert compiler.nvrtc_problem() == (
            f"NVRTC cannot be loaded (Failure finding libnvrtc.so.13), run: pip install {package}"
        )


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"cuda-bindings is not installed, run: pip install 's"):
        compile_kernels(SMALL, ["twice<float>"], "sm_80")


# ---- the folder


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
def counting(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    return Compiler()


def fetch(counting, source="text", architecture="sm_90", version="13.0", kernels=KERNELS):
    return compile_cached(
        source, kernels, architecture, nvrtc_version=version, compile_kernels=counting
    )


def test_the_second_time_nothing_is_compiled(counting):
    assert fetch(counting) == fetch(counting)
    assert counting.calls == 1


def test_anything_that_decides_the_code_is_in_the_key(counting, monkeypatch):
    changed = (
        {"source": "other"},
        {"architecture": "sm_80"},
        {"version": "13.1"},
        {"kernels": ("a", "b")},
    )
    fetch(counting)
    for change in changed:
        fetch(counting, **change)
    monkeypatch.setitem(compiler.OPTIONS, "std", "c++20")
    fetch(counting)
    assert counting.calls == 6


def test_names_do_not_run_into_one_another():
    assert cache_key("s", ("a", "b"), "sm_90", "13.0") != cache_key("s", ("ab",), "sm_90", "13.0")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"",
        lambda content: b"something else entirely",
        lambda content: compiler.FIRST_LINE + b"no digest",
    ],
    ids=["short", "flipped", "empty", "foreign", "half"],
)
def test_a_damaged_file_is_made_again(counting, damage):
    fresh = fetch(counting)
    (file,) = kernel_folder().iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert fetch(counting) == fresh
    assert fetch(counting) == fresh
    assert counting.calls == 2


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows keeps profiles apart")
@pytest.mark.parametrize("kind", ["owner", "all", "group", "folder"])
def test_kernels_that_others_may_write_are_not_loaded(counting, kind):
    """They are code: whoever wrote the file would run it on this user's GPU."""
    fetch(counting)
    (file,) = kernel_folder().iterdir()
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert oct(kernel_folder().stat().st_mode & 0o777) == "0o700"
    planted = encode(Compiled("sm_90", b"planted", {"a": "_Za"}, {}))
    file.write_bytes(planted)
    if kind == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root may give files away")
        os.chown(file, 12345, -1)
    elif kind == "folder":
        if os.geteuid() != 0:
            pytest.skip("only root may give folders away")
        os.chown(kernel_folder(), 12345, -1)
    else:
        file.chmod(0o606 if kind == "all" else 0o660)

    assert fetch(counting).cubin == b"text" and counting.calls == 2
    if kind == "folder":  # and nothing is written into the folder of somebody else
        assert file.read_bytes() == planted
    else:
        assert fetch(counting).cubin == b"text" and counting.calls == 2  # replaced by ours


def test_a_file_in_place_of_the_folder_is_no_obstacle(counting, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    assert fetch(counting).cubin == b"text"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_an_unwritable_folder_is_no_obstacle(counting):
    kernel_folder().mkdir(parents=True)
    kernel_folder().chmod(0o500)
    assert fetch(counting).cubin == b"text"
    assert list(kernel_folder().iterdir()) == []


def test_a_machine_without_home_is_no_obstacle(counting, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compiler, "cache_folder", homeless)
    assert fetch(counting).cubin == b"text"


def test_what_was_read_longest_ago_goes_first(counting, monkeypatch):
    for index, source in enumerate(("first", "second", "third")):
        fetch(counting, source)
        newest = max(kernel_folder().iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (index, index))
    size = newest.stat().st_size
    fetch(counting, "first")  # read now
    monkeypatch.setattr(compiler, "MAX_BYTES", 3 * size + 10)
    fetch(counting, "fourth")
    assert counting.calls == 4
    left = {decode(path.read_bytes()).cubin for path in kernel_folder().iterdir()}
    assert left == {b"first", b"third", b"fourth"}


def test_encoding_keeps_everything_and_refuses_the_rest():
    kept = Compiled("sm_90", b"\x7fELF\n\n\x00", {"a<1>": "_Za"}, {"a<1>": Resources(1, 2, 3, 4)})
    assert decode(encode(kept)) == kept
    with pytest.raises(ValueError, match="not a file of compiled kernels"):
        decode(b"pickle")
