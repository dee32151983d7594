"""Official pickles are read as data; anything else in them is refused, nothing runs."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylecli.errors import NetworkError
from stylecli.interop.pickle_reader import TFNetwork, read_tf_pickle
from tests.conftest import FIXTURES


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_official_triple_becomes_plain_arrays() -> None:
    # The file's source text is a trap: had it been executed, this process would have ended.
    G, _, _ = read_tf_pickle(FIXTURES / "official" / "stylegan1_labels_G_D_Gs.pkl")  # type: ignore[misc]
    assert isinstance(G, TFNetwork)
    assert G.state is not None
    assert G.state["build_func_name"] == "G_style"
    name, array = G.state["components"]["mapping"].state["variables"][0]
    assert name == "LabelConcat/weight"
    assert array.dtype == np.float32
    assert array.shape == (4, 16)


class _Executes:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(_Executes()), "system"),
        (b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n.", "StyleGAN2-ADA's or"),
        (pickle.dumps(np.array([{}], dtype=object)), "only numbers are read"),
        (b"\x80\x02\x82\x01.", "extension codes"),
        (b"\x80\x04", "not a readable pickle"),
        (pickle.dumps(np.arange(4.0))[:-20], "not a readable pickle"),
    ],
)
def test_hostile_and_damaged_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        read_tf_pickle(write(tmp_path / "bad.pkl", content))


def test_array_of_impossible_size_allocates_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            rebuild, arguments, state = np.arange(2.0).__reduce__()
            return rebuild, arguments, (1, (2**40,), state[2], False, b"\0" * 16)

    with pytest.raises(NetworkError, match="16 bytes for an array of shape"):
        read_tf_pickle(write(tmp_path / "bomb.pkl", pickle.dumps(Bomb())))
