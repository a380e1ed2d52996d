"""Actions that wait for the import of a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys

from mert_hf.utils.after_import import after_import


def test_action_runs_once_after_the_import(tmp_path, monkeypatch):
    (tmp_path / "awaited_module.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    after_import("awaited_module", lambda module: seen.append(module.value))
    after_import("awaited_module", lambda module: seen.append("again"))
    assert seen == []
    importlib.import_module("awaited_module")
    importlib.reload(sys.modules["awaited_module"])
    assert seen == [3]
    after_import("awaited_module", lambda module: seen.append(module.value + 1))
    assert seen == [3, 4]


def test_a_module_that_does_not_exist(tmp_path):
    after_import("no_such_module", lambda module: None)
    assert importlib.util.find_spec("no_such_module") is None
