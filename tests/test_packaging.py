"""The package's layout: listed packages, one copy of each module, a light import, the public names."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mert_hf

if sys.version_info < (3, 11):
    pytest.skip("Python 3.10 has no reader of TOML", allow_module_level=True)

import tomllib

REPOSITORY = Path(__file__).resolve().parent.parent
LINKED = ("modeling", "conversion")
LOOSE_FILES = {"__init__.py", "registration.py", "py.typed"}


def test_packages_are_listed():
    """pyproject.toml lists each package of the tree, through the symlinks too, and no other."""
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent for path in (REPOSITORY / "mert_hf").rglob("__init__.py")}
    folders |= {REPOSITORY / "mert_hf" / name for name in LINKED}
    assert set(listed["packages"]) == {".".join(path.relative_to(REPOSITORY).parts) for path in folders}
    assert {f"mert_hf.{name}": name for name in LINKED}.items() <= listed["package-dir"].items()


def test_modules_lie_in_packages():
    assert {path.name for path in (REPOSITORY / "mert_hf").iterdir() if path.is_file()} == LOOSE_FILES


def test_checkout_holds_links_not_copies():
    for name in LINKED:
        assert (REPOSITORY / "mert_hf" / name).is_symlink()
        assert (REPOSITORY / "mert_hf" / name).resolve() == REPOSITORY / name


def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path):
    """A .pth file to the checkout, with py.typed and the linked packages, and no import hook."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for folder in (REPOSITORY / "mert_hf", *(REPOSITORY / name for name in LINKED)):
        shutil.copytree(folder, tmp_path / folder.name, symlinks=True, ignore=shutil.ignore_patterns("checkpoints"))
    build = "from setuptools import build_meta; print(build_meta.build_editable('wheels'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True)
    with zipfile.ZipFile(next((tmp_path / "wheels").glob("*.whl"))) as wheel:
        files = [name for name in wheel.namelist() if ".dist-info/" not in name]
        assert [Path(name).suffix for name in files] == [".pth"]
        place = Path(wheel.read(files[0]).decode().strip())
    assert place == tmp_path
    assert (place / "mert_hf" / "py.typed").is_file() and (
        place / "mert_hf" / "modeling" / "modeling_mert.py"
    ).is_file()


def test_a_checkout_without_symlinks_holds_the_linked_packages(tmp_path):
    ignored = shutil.ignore_patterns("checkpoints", *LINKED)
    shutil.copytree(REPOSITORY / "mert_hf", tmp_path / "mert_hf", ignore=ignored)
    for name in LINKED:
        shutil.copytree(REPOSITORY / name, tmp_path / name)
        (tmp_path / "mert_hf" / name).write_text(f"../{name}")
    code = "import mert_hf.modeling, mert_hf.conversion.hub as e; print(mert_hf.modeling.__file__, e.__name__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [str(tmp_path / "modeling" / "__init__.py"), "mert_hf.conversion.hub"]


def test_hub_files_import_only_what_every_user_has():
    """The files next to a checkpoint may need torch, transformers and numpy, nothing else at import."""
    for path in (REPOSITORY / "modeling").glob("*_mert.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if line.startswith(("import ", "from ")):
                root = words[1].split(".")[0]
                allowed = root in ("", "torch", "transformers", "numpy") or root in sys.stdlib_module_names
                assert allowed, f"{path.name}: {line}"


def test_import_is_light():
    """`import mert_hf` leaves transformers' modeling code, and every optional package, alone."""
    heavy = ["transformers.modeling_utils", "datasets", "sklearn", "matplotlib", "nnAudio", "music21"]
    code = f"import sys, mert_hf; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names():
    assert all(getattr(mert_hf, name) is not None for name in mert_hf.__all__)
    assert {"read_audio", "AudioReadError", "MusicIndex", "MERTEmbedder"} <= set(mert_hf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'MERTTokenizer'"):
        mert_hf.MERTTokenizer  # noqa: B018
