"""Installations in a bare environment with the base dependencies only: wheel, sdist, editable checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("Python 3.10 has no reader of TOML", allow_module_level=True)

import tomllib

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINKED = ("modeling", "conversion")  # symlinks in mert_hf/; text files in a checkout on Windows

pytestmark = pytest.mark.slow

CHECK = """
import sys
import numpy
import mert_hf.conversion, mert_hf.modeling, mert_hf.modeling.cqt_mert
from mert_hf import *
assert mert_hf.__file__.startswith(sys.argv[1]), mert_hf.__file__
song = numpy.sin(numpy.arange(48000) / 20).astype("float32")
embedding = MERTEmbedder.from_pretrained("mert-nano").encode(song, sampling_rate=24000, show_progress_bar=False)
assert embedding.shape[0] == 1 and numpy.isfinite(embedding.embeddings).all()
MERTModel.from_pretrained(mert_hf.hub.names.resolve_checkpoint("mert-nano")).save_pretrained("saved")
"""


# Without what would let the bare environment find this checkout, or a user's account on the Hub.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}


def call(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def must(*words: object, cwd: Path | None = None) -> str:
    done = call(*words, cwd=cwd)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the tracked files."""
    archive = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip("This is not a git checkout, so there is no list of tracked files.")
    folder = tmp_path_factory.mktemp("source")
    tar = ["tar", "--null", "--files-from=-", "-cf", folder / "source.tar"]
    subprocess.run(tar, input=archive.stdout, cwd=REPOSITORY, check=True)
    must("tar", "-xf", "source.tar", cwd=folder)
    (folder / "source.tar").unlink()
    return folder


@pytest.fixture(scope="module")
def artifacts(source, tmp_path_factory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    pytest.importorskip("build", reason="the extra dev is not installed")
    out = tmp_path_factory.mktemp("dist")
    must(sys.executable, "-m", "build", "--outdir", out, source)
    return {"wheel": next(out.glob("*.whl")), "sdist": next(out.glob("*.tar.gz"))}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """Folder of the programs of an environment with the base dependencies; each test installs mert_hf into it."""
    folder = tmp_path_factory.mktemp("bare")
    must(sys.executable, "-m", "venv", folder)
    # Most of what is installed is never imported here: compiling all of it would take as long as the tests.
    pip = [folder / "bin" / "pip", "install", "--quiet", "--no-compile", "-c", REPOSITORY / "constraints.txt"]
    must(*pip, "torch")
    must(*pip, *PROJECT["dependencies"])
    return folder / "bin"


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    """Labeled recordings."""
    import numpy as np
    import soundfile

    folder = tmp_path_factory.mktemp("songs")
    rows = ["file_name,kind,split"]
    for number in range(8):
        time = np.arange(48000) / 24000
        soundfile.write(folder / f"{number}.wav", 0.3 * np.sin(2 * np.pi * (220 + 100 * number) * time), 24000)
        rows.append(f"{number}.wav,{'ab'[number % 2]},{('train', 'train', 'validation', 'test')[number // 2]}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def check_installation(bare: Path, place: Path, work: Path) -> None:
    must(bare / "python", "-c", CHECK, place, cwd=work)
    assert "modeling_mert.py" in {path.name for path in (work / "saved").iterdir()}
    report = must(bare / "mert-hf", "doctor", "--model", "mert-nano", cwd=work)
    assert "[problem]" not in report and "[ok] transformers" in report


def test_wheel_holds_each_file_once(artifacts, source):
    names = zipfile.ZipFile(artifacts["wheel"]).namelist()
    code = [name for name in names if not name.split("/")[0].endswith(".dist-info")]
    tracked = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    expected = {name for name in tracked if name.startswith("mert_hf/")}
    expected |= {f"mert_hf/{name}" for name in tracked if name.split("/")[0] in LINKED}
    assert {name for name in code if name.endswith(".py")} == expected
    assert "mert_hf/py.typed" in code and any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_artifact_works(kind, artifacts, bare, tmp_path):
    must(bare / "pip", "install", "--quiet", "--no-deps", "--force-reinstall", artifacts[kind])
    site = must(bare / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
    check_installation(bare, Path(site), tmp_path)


def test_editable_install_without_symlinks(source, bare, tmp_path):
    checkout = tmp_path / "checkout"
    must("cp", "-a", source, checkout)
    for name in LINKED:
        (checkout / "mert_hf" / name).unlink()
        (checkout / "mert_hf" / name).write_text(f"../{name}")
    must(bare / "pip", "install", "--quiet", "--no-deps", "--force-reinstall", "-e", checkout)
    check_installation(bare, checkout, tmp_path)


# What each command does in the bare environment: it works (None), or names the extra to install.
COMMANDS = {
    "quickstart --minutes 0.01": "quickstart",
    "embed SONGS --output out": None,
    "index SONGS --output index": "search",
    "search INDEX song.wav": "search",
    "duplicates INDEX": "search",
    "serve INDEX": "serve",
    "tag SONGS --output tags.json": None,
    "distance SONGS SONGS --kind kad --draws 2": None,
    "fit-kmeans --data SONGS --output kmeans": "train",
    "fit-features --data SONGS --features mfcc,tempogram --output features": None,
    "fit-rvq --data SONGS --output rvq --encoder mert-nano:2": "train",
    "label --data SONGS --teacher CHECKPOINT/teachers/acoustic --output labels": None,
    "shard SONGS --teacher CHECKPOINT/teachers/acoustic --output shards": None,
    "pretrain CONFIG --data SONGS --output run --max_steps 1 --report_to none --device cpu": None,
    "distill mfcc --into random:mert2-nano --data SONGS --output student --max_steps 1 --min_duration 1": None,
    "finetune --data SONGS --target kind --model mert-nano --output tuned": "eval",
    "evaluate audiofolder --data SONGS --target kind --model mel --output results.json": "eval",
    "export onnx mert-nano exported": "onnx",
    "convert hub CHECKPOINT converted": None,
    "doctor --data SONGS": None,
}
# Commands that cannot do their work here, and what they report.
REFUSED = {
    "convert fairseq CONFIG converted": "config.yaml",
    "convert encodec CONFIG converted": "config.yaml",
    "push CHECKPOINT owner/name": "HF_TOKEN",
    "predict CHECKPOINT SONGS": "is not a fine-tuned MERT model",
    "compare CONFIG": "config.yaml",
    "report CONFIG": "config.yaml",
}


@pytest.fixture(scope="module")
def wheel_environment(artifacts, bare) -> Path:
    must(bare / "pip", "install", "--quiet", "--no-deps", "--force-reinstall", artifacts["wheel"])
    return bare


@pytest.fixture(scope="module")
def checkpoint(wheel_environment) -> str:
    """Folder of the bundled checkpoint as it is installed."""
    code = "import mert_hf.hub.names as n; print(n.resolve_checkpoint('mert-nano'))"
    return must(wheel_environment / "python", "-c", code).strip()


@pytest.fixture
def run_command(wheel_environment, checkpoint, songs, tmp_path):
    """Runs a command in the bare environment; the words in capitals become places."""
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model_name_or_path: mert-nano\nacoustic_teacher: {{type: kmeans, path: {checkpoint}/teachers/acoustic}}\n"
        f"musical_teacher: {{type: cqt, path: {checkpoint}/teachers/musical}}\ncrop_length: 24000\nmin_duration: 1\n"
    )
    places = {"SONGS": songs, "CHECKPOINT": checkpoint, "CONFIG": config, "INDEX": tmp_path / "index"}

    def run(words: str) -> subprocess.CompletedProcess:
        for name, place in places.items():
            words = words.replace(name, str(place))
        done = call(wheel_environment / "mert-hf", *words.split(), cwd=tmp_path)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.mark.parametrize("words", COMMANDS)
def test_command_without_extras(words, run_command):
    """A command works, or reports in one line which extra to install."""
    done = run_command(words)
    if (extra := COMMANDS[words]) is None:
        assert done.returncode == 0, done.stdout + done.stderr
        return
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mert-hf: error: ") and last.endswith(f'Install it with: pip install "mert_hf[{extra}]"')


@pytest.mark.parametrize("words", REFUSED)
def test_refusal_without_extras(words, run_command):
    done = run_command(words)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("mert-hf: error: ") and REFUSED[words] in last, done.stderr


def test_every_command_is_tried():
    import typer

    from mert_hf.cli.app import app

    assert {words.split()[0] for words in (*COMMANDS, *REFUSED)} == set(typer.main.get_command(app).commands)
