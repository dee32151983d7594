"""Files that try something, built by code: name -> (bytes, what the refusal says)."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np

from tests.interop.foreign_files import FEATURES, huangzh13_generator, tf_triple, torch_file

PROTOCOL = b"\x80\x04"
RAN = "/tmp/stylecli-test-code-ran"  # what the payloads would create
COMMAND = f"touch {RAN}".encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


def data(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


SYSTEM = named("posix", "system")
EVIL = PROTOCOL + SYSTEM + text(COMMAND) + b"\x85R."
NETWORK = named("dnnlib.tflib.network", "Network")
LOAD = named("torch.storage", "_load_from_bytes")
FLOATS = named("torch", "FloatStorage")
TORCH_HEAD = (
    pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    + pickle.dumps({"little_endian": True, "protocol_version": 1001, "type_sizes": {}}, 2)
)  # fmt: skip


def opcodes(count: int, step: bytes) -> bytes:
    return PROTOCOL + b"N" + step * count + b"."


def doubled_tuples(depth: int) -> bytes:
    """Return a tuple of two equal tuples of two equal tuples, and so on."""
    steps = b"".join(b"r" + struct.pack("<I", i) + b"j" + struct.pack("<I", i) + b"\x86"
                     for i in range(depth))  # fmt: skip
    return PROTOCOL + b")" + steps


def storage_id(count: int, kind: bytes = FLOATS) -> bytes:
    return (b"(" + text(b"storage") + kind + text(b"0") + text(b"cpu")
            + b"\x8a\x08" + struct.pack("<q", count) + b"tQ")  # fmt: skip


def tensor(size: bytes, stride: bytes, count: int = 1) -> bytes:
    """Return a torch stream with one tensor under a storage of ``count`` floats."""
    body = (PROTOCOL + named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage_id(count)
            + b"K\x00" + size + stride + b"\x89}tR.")  # fmt: skip
    keys = pickle.dumps(["0"], 2)
    return TORCH_HEAD + body + keys + struct.pack("<q", count) + b"\0" * 4 * min(count, 64)


def doubled(depth: int) -> object:
    value: object = ()
    for _ in range(depth):
        value = (value, value)
    return value


def laughing_settings() -> bytes:
    """Return a triple whose settings hold a dict of one dict twenty times, and so on."""
    inner: dict[str, object] = {"a": 1}
    for _ in range(8):
        inner = {str(index): inner for index in range(20)}
    return tf_triple(resolution=inner)


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def one_storage_many_arrays() -> bytes:
    """Return 64 kB that 400 arrays name: 26 MB of arrays out of a hundred kB."""
    head = PROTOCOL + data(b"\0" * 65_535) + b"q\x00" + named("numpy", "dtype") + b"("
    head += text(b"u1") + b"\x89\x88tRq\x01]"
    array = (named("numpy.core.multiarray", "_reconstruct") + b")R(K\x01M\xff\xff\x85h\x01\x89h\x00"
             b"tba")  # fmt: skip
    return head + array * 400 + b"."


def safetensors(header: object, body: bytes = b"") -> bytes:
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + body


def claims_a_giant() -> bytes:
    """Return a file of ours whose configuration needs gigabytes that it does not have."""
    from stylecli.networks.stylegan1_config import StyleGAN1Config

    config = StyleGAN1Config(fmap_base=1 << 20, fmap_max=16_384, w_dim=16_384).to_dict()
    metadata = {"stylecli": json.dumps({"format": 1, "config": config})}
    place = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return safetensors({"__metadata__": metadata, "G.x": place}, b"\0" * 4)


def pickles() -> dict[str, tuple[bytes, str]]:
    shape = pickle.dumps(np.zeros((3, 5), np.uint8), 3).replace(b"K\x03K\x05", b"K\xffK\xff")
    return {
        "reduce": (EVIL, "names posix.system"),
        "reduce-windows": (EVIL.replace(b"posix", b"nt"), "names nt.system"),
        "subprocess": (EVIL.replace(SYSTEM, named("subprocess", "call")), "names subprocess.call"),
        "eval": (EVIL.replace(SYSTEM, named("builtins", "eval")), "names builtins.eval"),
        "getattr": (EVIL.replace(SYSTEM, named("builtins", "getattr")), "names builtins.getattr"),
        "stack-global": (PROTOCOL + text(b"posix") + text(b"system") + b"\x93)R.", "names posix"),
        "dotted": (
            PROTOCOL + text(b"numpy") + text(b"core.multiarray._reconstruct") + b"\x93.",
            "names numpy",
        ),
        "inst": (PROTOCOL + b"(" + text(COMMAND) + b"iposix\nsystem\n.", "opcode INST"),
        "obj": (PROTOCOL + b"(" + SYSTEM + text(COMMAND) + b"o.", "names posix.system"),
        "obj-known": (PROTOCOL + b"(" + NETWORK + b"o.", "opcode OBJ"),
        "newobj": (PROTOCOL + SYSTEM + b")\x81.", "names posix.system"),
        "newobj-ex": (PROTOCOL + NETWORK + b")}\x92.", "opcode NEWOBJ_EX"),
        "build-setstate": (
            PROTOCOL + NETWORK + b")\x81}" + text(b"__setstate__") + NETWORK + b"sb}b.",
            "no network",
        ),
        "build-name": (PROTOCOL + NETWORK + b"}b.", "changes a name"),
        "build-list": (PROTOCOL + b"]}b.", "state of a plain value"),
        "call-text": (PROTOCOL + text(b"posix.system") + b")R.", "not a name"),
        "nested": (
            PROTOCOL + LOAD + data(EVIL) + b"\x85R.",
            "no file that torch saved|names posix",
        ),
        "nested-torch": (
            PROTOCOL + LOAD + data(TORCH_HEAD + EVIL) + b"\x85R.",
            "names posix.system",
        ),
        "nested-twice": (
            PROTOCOL
            + LOAD
            + data(TORCH_HEAD + PROTOCOL + LOAD + data(EVIL) + b"\x85R.")
            + b"\x85R.",
            "names torch.storage._load_from_bytes",
        ),
        "torch-load": (
            PROTOCOL + named("torch", "load") + text(b"x") + b"\x85R.",
            "names torch.load",
        ),
        "object-array": (pickle.dumps(np.array([{}], dtype=object)), "only numbers are read"),
        "object-scalar": (
            PROTOCOL
            + named("numpy.core.multiarray", "scalar")
            + named("numpy", "dtype")
            + text(b"O8")
            + b"\x89\x88\x87R"
            + data(EVIL)
            + b"\x86R.",
            "only numbers",
        ),
        "ext1": (PROTOCOL + b"\x82\x01.", "opcode EXT1"),
        "ext2": (PROTOCOL + b"\x83\x01\x00.", "opcode EXT2"),
        "ext4": (PROTOCOL + b"\x84\x01\x00\x00\x00.", "opcode EXT4"),
        "persid": (PROTOCOL + b"Pthere\n.", "opcode PERSID"),
        "binpersid": (PROTOCOL + text(b"there") + b"Q.", "outside the file"),
        "buffer": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
        "dup": (PROTOCOL + b"N2.", "opcode DUP"),
        "memo-bomb": (opcodes(30_000, b"\x94"), "more steps"),
        "list-bomb": (opcodes(30_000, b"]"), "more steps"),
        "laughs": (doubled_tuples(60) + b".", "no network"),
        "laughs-deep": (doubled_tuples(5_000) + b".", "nested too deeply"),
        "laughs-key": (PROTOCOL + b"}" + doubled_tuples(60)[2:] + b"Ns.", "tuple as a key"),
        "laughs-set": (PROTOCOL + b"\x8f(" + doubled_tuples(60)[2:] + b"\x90.", "set of something"),
        "key-collisions": (PROTOCOL + b"}\x8a\x10" + b"\x7f" * 16 + b"Ns.", "int as a key"),
        "laughs-shape": (
            PROTOCOL
            + named("numpy.core.multiarray", "_reconstruct")
            + b")R(K\x01"
            + doubled_tuples(60)[2:]
            + b"NNNtb.",
            "not numeric|array of shape tuple",
        ),
        "laughs-dtype": (
            PROTOCOL + named("numpy", "dtype") + doubled_tuples(60)[2:] + b"\x85R.",
            "values of type tuple",
        ),
        "laughs-tensor": (
            PROTOCOL
            + named("torch._utils", "_rebuild_tensor_v2")
            + b"N"
            + doubled_tuples(60)[2:]
            + b"\x86R.",
            "unknown form",
        ),
        "laughs-module": (
            PROTOCOL
            + named("torch_utils.persistence", "_reconstruct_persistent_obj")
            + b"}("
            + text(b"state")
            + b"}"
            + text(b"class_name")
            + doubled_tuples(60)[2:]
            + b"u\x85R.",
            "no network",
        ),
        "laughs-build": (tf_triple(fmap_decay=doubled(60)), "'fmap_decay'"),
        "shape": (shape, "bytes for an array of shape"),
        "bytes-2-40": (PROTOCOL + b"\x8e" + struct.pack("<Q", 1 << 40) + b".", "ends too early"),
        "text-2-40": (PROTOCOL + b"\x8d" + struct.pack("<Q", 1 << 40) + b".", "ends too early"),
        "frame-2-60": (PROTOCOL + b"\x95" + struct.pack("<Q", 1 << 60) + b"N.", "ends too early"),
        "integer": (
            PROTOCOL + b"\x8b" + struct.pack("<I", 1 << 20) + b"\1" * (1 << 20) + b".",
            "an integer of",
        ),
        "negative-length": (PROTOCOL + b"\x8b\xff\xff\xff\xff.", "ends too early"),
        "copies": (one_storage_many_arrays(), "larger than the file"),
        "list-in-itself": (PROTOCOL + b"]q\x00h\x00a.", "holds itself"),
        "protocol-0": (pickle.dumps({"a": 1}, 0), "binary pickle|not a readable|no network"),
        "protocol-1": (pickle.dumps({"a": 1}, 1), "binary pickle|not a readable|no network"),
        "protocol-6": (b"\x80\x06N.", "protocol 6"),
        "empty": (b"\x80", "ends too early"),
        "underflow": (PROTOCOL + b"R.", "never made"),
        "no-mark": (PROTOCOL + b"t.", "never opened"),
        "fork": (tf_triple(resolution_h=3, resolution_w=5), "setting 'resolution_[hw]'"),
        "setting-laughs": (laughing_settings(), "setting 'resolution' is a"),
        "setting-array": (tf_triple(fmap_decay=np.zeros(3)), "setting 'fmap_decay' is a"),
        "setting-giant": (tf_triple(fmap_max=1 << 60), "its generator has"),
    }


def torch_files() -> dict[str, tuple[bytes, str]]:
    one, two_40 = b"K\x01\x85", b"\x8a\x06" + struct.pack("<Q", 1 << 40)[:6] + b"\x85"
    good = huangzh13_generator()
    evil_pickle = {"archive/data.pkl": EVIL, "archive/version": b"3"}
    pickle_only = {"archive/data.pkl": pickle.dumps({}, 2)}
    missing = PROTOCOL + storage_id(1) + b"."
    whole = torch_file({"a": np.zeros(FEATURES, np.float32)})
    entry = whole.rfind(b"PK\1\2")
    overlapping = bytearray(whole)
    overlapping[entry + 42 : entry + 46] = b"\0\0\0\0"  # the last entry begins where the first does
    return {
        "stride-2-62": (tensor(one, b"\x8a\x08" + bytes(7) + b"\x40\x85"), "in an unknown form"),
        "stride-0": (tensor(two_40, b"K\x00\x85"), "larger than the file"),
        "shape-2-40": (tensor(two_40, one), "over a storage of 1 elements"),
        "storage-2-40": (tensor(one, one, 1 << 40), "bytes for a storage of"),
        "negative-stride": (tensor(one, b"J\xff\xff\xff\xff\x85"), "tensor in an unknown form"),
        "stream-evil": (TORCH_HEAD + EVIL, "names posix.system"),
        "zip-evil": (zipped(evil_pickle), "names posix.system"),
        "zip-of-pickle": (zipped({"network.pkl": tf_triple()}), "torch did not save it"),
        "zip-bomb": (
            zipped({"archive/data.pkl": b"\0" * (1 << 24)}, zipfile.ZIP_DEFLATED),
            "compressed or encrypted",
        ),
        "zip-program": (
            zipped({**pickle_only, "archive/code/x.py": b"raise SystemExit"}),
            "TorchScript program",
        ),
        "zip-two": (zipped({**pickle_only, "b/data.pkl": b""}), "torch did not save it"),
        "zip-missing": (zipped({"archive/data.pkl": missing}), "not in the file"),
        "zip-up": (
            zipped({**pickle_only, "archive/../../etc/cron.d/x": b""}),
            "zip names the entry",
        ),
        "zip-root": (zipped({**pickle_only, "/etc/passwd": b""}), "zip names the entry"),
        "zip-backslash": (
            zipped({**pickle_only, "archive\\..\\x": b""}).replace(b"archive/..", b""),
            "zip names the entry|torch did not save it|no network",
        ),
        "zip-overlap": (bytes(overlapping), "overlap|outside the file|damaged"),
        "zip-big-endian": (zipped({**pickle_only, "archive/byteorder": b"big"}), "byte order"),
        "zip-many": (
            zipped(pickle_only)[:-22]
            + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 60_000, 60_000, 0, 0, 0),
            "60,000 entries|damaged|whole",
        ),
        "zip-empty": (b"PK\5\6" + b"\0" * 18, "not a readable|whole zip|network"),
        "huang-extra": (torch_file({**good, "surprise": np.zeros(2, np.float32)}), "'surprise'"),
        "huang-blocks": (
            torch_file(
                {
                    **good,
                    **{
                        f"g_synthesis.blocks.{i}.conv1.weight": np.zeros((2, 2, 3, 3), np.float32)
                        for i in range(1, 30)
                    },
                }
            ),
            "30 blocks|31 blocks",
        ),
    }


def own_files() -> dict[str, tuple[bytes, str]]:
    whole = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    metadata = {"stylecli": "{"}
    return {
        "header-2-40": (struct.pack("<Q", 1 << 40) + b"{}", "not a readable safetensors"),
        "header-lies": (struct.pack("<Q", 1 << 20) + b"{}", "not a readable safetensors"),
        "overlap": (
            safetensors({"a": whole, "b": whole}, b"\0" * 16),
            "not a readable safetensors",
        ),
        "outside": (
            safetensors({"a": {**whole, "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
            "not a readable safetensors",
        ),
        "no-header": (safetensors({"a": whole}, b"\0" * 16), "not written by stylecli"),
        "json": (
            safetensors({"__metadata__": metadata, "a": whole}, b"\0" * 16),
            "stylecli header of .* is not readable",
        ),
        "giant": (claims_a_giant(), "configuration needs at least"),
        "text": (b"hello there, I am a text", "not a readable safetensors .*of another kind"),
        "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "of another kind; networks are"),
        "directions": (
            safetensors(
                {"__metadata__": {"stylecli": '{"format": 1, "kind": "directions"}'}, "a": whole},
                b"\0" * 16,
            ),
            "holds directions, not a network",
        ),
        "nothing": (b"", "is empty"),
    }
