"""What is installed: the wheel's files, one copy of each module, a light import, the public names."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mert_hf

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names of the files in a wheel that is built from the tracked files of this checkout."""
    build = pytest.importorskip("build", reason="the dev extra is not installed")
    assert build
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    archive = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip("not a git checkout, so there is no list of tracked files")
    subprocess.run(
        ["tar", "--null", "--files-from=-", "-cf", source / "source.tar"],
        input=archive.stdout, cwd=REPOSITORY, check=True,
    )  # fmt: skip
    subprocess.run(["tar", "-xf", "source.tar"], cwd=source, check=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True, capture_output=True,
    )  # fmt: skip
    return zipfile.ZipFile(next(out.glob("*.whl"))).namelist()


def test_wheel_holds_each_module_once(wheel):
    names = [name for name in wheel if not name.split("/")[0].endswith(".dist-info")]
    assert all(name.startswith("mert_hf/") for name in names)
    for file in ("configuration_mert.py", "modeling_mert.py", "cqt_mert.py", "feature_extraction_mert.py"):
        assert [name for name in names if name.endswith(file)] == [f"mert_hf/modeling/{file}"]
    listing = subprocess.run(
        ["git", "ls-files", "modeling/*.py", "conversion/*.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {f"mert_hf/{name}" for name in listing.stdout.split()} <= set(names)


def test_checkout_holds_links_not_copies():
    for name in ("modeling", "conversion"):
        assert (REPOSITORY / "mert_hf" / name).is_symlink()
        assert (REPOSITORY / "mert_hf" / name).resolve() == REPOSITORY / name


def test_hub_files_import_only_what_every_user_has():
    """The files beside a checkpoint may need torch, transformers and numpy, nothing else at import."""
    for path in (REPOSITORY / "modeling").glob("*_mert.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if line.startswith(("import ", "from ")):
                root = words[1].split(".")[0]
                allowed = root in ("", "torch", "transformers", "numpy") or root in sys.stdlib_module_names
                assert allowed, f"{path.name}: {line}"


def test_import_is_light():
    """`import mert_hf` leaves transformers' modelling code, and every optional package, alone."""
    heavy = ["transformers.modeling_utils", "datasets", "sklearn", "matplotlib", "nnAudio", "music21"]
    code = f"import sys, mert_hf; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names():
    assert all(getattr(mert_hf, name) is not None for name in mert_hf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'MERTTokenizer'"):
        mert_hf.MERTTokenizer  # noqa: B018
