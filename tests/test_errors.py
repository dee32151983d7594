"""Any error as one sentence with its exit code; text of strangers without control characters."""

import errno
import json
import zipfile

import pytest
from safetensors import SafetensorError

from stylecli.errors import ExitCode, NetworkError, explain, printable, printable_json

EVIL = "a\x1b[31m\n\r\x07\x9b\x7f\u202e\u2028\ufeff\udc80\U000e0041b"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NetworkError("x - y"), ExitCode.UNUSABLE, "x - y"),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), ExitCode.FAILED, "full (a.png"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.png"), ExitCode.FAILED, "full (a.png"),
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), ExitCode.FAILED, "a.png: P"),
        (OSError(errno.EROFS, "Read-only file system", "a"), ExitCode.FAILED, "choose another"),
        (MemoryError(), ExitCode.FAILED, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you\n more"), ExitCode.FAILED,
         "not enough memory"),
        (RuntimeError("CUDA error: no kernel image"), ExitCode.NO_DEVICE, "--device cpu"),
        (RecursionError("deep"), ExitCode.UNUSABLE, "RecursionError: deep"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ExitCode.UNUSABLE, "0xff"),
        (SafetensorError("header too large"), ExitCode.UNUSABLE, "header too large"),
        (zipfile.BadZipFile("no zip"), ExitCode.UNUSABLE, "no zip"),
        (KeyError("x"), ExitCode.FAILED, "STYLECLI_DEBUG=1"),
        (AssertionError(), ExitCode.FAILED, "STYLECLI_DEBUG=1"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "run the same command"),
    ],
)  # fmt: skip
def test_every_error_has_a_sentence_and_a_code(
    error: BaseException, code: ExitCode, words: str
) -> None:
    text, found = explain(error)

    assert found == code
    assert words in text
    assert "\n" not in text


def test_a_librarys_long_words_are_cut() -> None:
    text, _ = explain(RuntimeError("x\x1b" * 10_000))

    assert len(text) < 500
    assert "\x1b" not in text


def test_text_of_strangers_commands_no_terminal() -> None:
    text = printable(EVIL)

    assert text == r"a\x1b[31m\n\r\x07\x9b\x7f\u202e\u2028\ufeff\udc80\U000e0041b"
    assert printable("Fréchet 猫\u3000👩\u200d🎨 a\n  b") == "Fréchet 猫\u3000👩\u200d🎨 a\n  b"


def test_json_for_a_terminal_holds_the_same_values() -> None:
    text = printable_json(json.dumps({EVIL: [EVIL, 1]}, indent=2, ensure_ascii=False))

    assert json.loads(text) == {EVIL: [EVIL, 1]}
    assert not set("\x1b\x9b\x7f\u202e\udc80") & set(text)
