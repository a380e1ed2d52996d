"""Text for people: names that are not UTF-8, long lists, errors in one line, Markdown tables; JSON files; hashes."""

from __future__ import annotations

import hashlib
import os

import pytest
import torch

from mert_hf.encoders.base import hash_tensors
from mert_hf.utils.files import read_json
from mert_hf.utils.text import markdown_table, one_line, printable, shorten


def test_names_of_any_bytes_are_printable():
    assert printable(os.fsdecode(b"caf\xe9.wav")).encode() == b"caf\\udce9.wav"


def test_long_lists_are_shortened():
    assert shorten(["a", "b"]) == "a, b"
    assert shorten(list("abcdef"), 2, "; ") == "a; b and 4 more"
    assert shorten([]) == ""


def test_errors_fit_in_a_line():
    assert one_line(ValueError("first\n  second" + "x" * 400)) == "first second" + "x" * 288


def test_markdown_tables_escape_separators():
    assert markdown_table(["a", "b"], [["x|y", 1]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "x.json is missing"), ("{", "is not valid JSON"), ("[" * 100_000, "is not valid"), ("[]", "holds a list")],
)
def test_json_objects_only(tmp_path, content, message):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UnicodeError, match=message):
        read_json(path, UnicodeError)


def test_tensors_are_hashed_by_name_dtype_shape_and_bytes():
    expected = hashlib.sha256(b"a torch.bfloat16 (1,)" + b"\x80\x3f" + b"b torch.int64 ()" + bytes(8))
    digest = hashlib.sha256()
    hash_tensors(digest, {"b": torch.tensor(0), "a": torch.ones(1, dtype=torch.bfloat16)})
    assert digest.digest() == expected.digest()
