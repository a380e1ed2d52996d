"""The Gradio app: what it computes, what it refuses, and the page itself in headless Chromium (slow)."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile
from huggingface_hub import RepoCard
from transformers import pipeline

from mert_hf import MERTEmbedder
from mert_hf.hub.checkpoint import save_checkpoint
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor

pytest.importorskip("gradio", reason="the app needs the extra 'page'")

SERVE = Path(__file__).resolve().parents[2] / "examples" / "serve"
START_SECONDS, ANSWER_SECONDS = 180, 120


@pytest.fixture(scope="module", autouse=True)
def app_modules():
    """The app's modules import each other as scripts in one folder do."""
    sys.path.insert(0, str(SERVE))
    yield
    sys.path.remove(str(SERVE))
    for name in ("app", "analysis", "figures"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def embedder(tiny_checkpoint: Path) -> MERTEmbedder:
    return MERTEmbedder.from_pretrained(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, tiny_checkpoint: Path) -> Path:
    """A head with random weights for three labels."""
    from mert_hf.modeling.modeling_mert import MERTForSequenceClassification

    labels = {0: "calm", 1: "loud", 2: "strange"}
    model = MERTForSequenceClassification.from_pretrained(tiny_checkpoint, id2label=labels, num_labels=3)
    return save_checkpoint(model, MERTFeatureExtractor(), tmp_path_factory.mktemp("classifier"))


def test_the_limit_of_an_upload_is_its_size(tmp_path):
    from analysis import Limits

    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 300), 8000)
    limits = Limits(megabytes=0.04)
    with pytest.raises(ValueError, match="Choose a recording first"):
        limits.check(None)
    with pytest.raises(ValueError, match=r"This file has 4\.8 MB; at most 0\.04 MB are taken"):
        limits.check(str(tmp_path / "long.wav"))
    assert Limits().check(str(tmp_path / "long.wav")) == 300.0


def test_pictures_of_a_song_of_any_length(tmp_path):
    from figures import waveform

    ramp = np.linspace(0, 0.5, 8000 * 200)
    soundfile.write(tmp_path / "long.wav", ramp, 8000)
    tracemalloc.start()
    (area,) = waveform(str(tmp_path / "long.wav")).axes[0].collections
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    points = area.get_paths()[0].vertices
    assert points[:, 0].max() == pytest.approx(200, abs=0.2) and points[:, 1].max() == pytest.approx(0.5, abs=1e-3)
    assert peak < 5e6  # the samples have 6.4 MB


def test_names_in_any_script_have_a_font(monkeypatch):
    import figures

    fonts = [font for font in figures.fontManager.ttflist if font.name not in figures.FALLBACK_FONTS]
    monkeypatch.setattr(figures.fontManager, "ttflist", fonts)
    assert figures.font_families() == ["DejaVu Sans"]
    for name in ("Meiryo", "Noto Sans CJK JP"):
        fonts.append(SimpleNamespace(name=name))
    assert figures.font_families() == ["DejaVu Sans", "Noto Sans CJK JP", "Meiryo"]


def test_japanese_names_are_drawn():
    import figures

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figures.library_map(np.eye(3)[:, :2], ["日本の歌", "日本", "musique"]).savefig(io.BytesIO())
    boxes = any("missing from" in str(warning.message) for warning in caught)
    assert boxes == (len(figures.font_families()) == 1)  # only where no such font is installed


def test_linear_cka_by_hand(generator):
    from analysis import linear_cka

    layer = np.random.default_rng(0).standard_normal((20, 4))
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    states = np.stack([layer, 3 * layer @ rotation + 1, np.ones((20, 4))], axis=1)
    assert linear_cka(states) == pytest.approx(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]]), abs=1e-9)
    first, second = np.array([[1.0], [-1.0], [0.0], [0.0]]), np.array([[0.0], [0.0], [1.0], [-1.0]])
    assert linear_cka(np.stack([first, second], axis=1)) == pytest.approx(np.eye(2), abs=1e-12)


@pytest.fixture(scope="module")
def library(songs, tiny_checkpoint, tmp_path_factory):
    from analysis import open_library

    return open_library(songs, str(tiny_checkpoint), tmp_path_factory.mktemp("index"))


def test_a_recording_is_most_similar_to_itself(songs, embedder, library):
    from analysis import open_library
    from app import Demo

    demo = Demo(embedder, library=library)
    (name, similarity), *others = demo.similar(str(songs / "05.flac"))
    assert (name, similarity) == ("05.flac", 1.0) and len(others) == 4
    assert all(-1 <= value < 1 for _, value in others)
    assert open_library(library.folder, "unused", "unused").paths() == library.paths()  # an index is opened as it is
    demo.results.cleanup()


def test_recordings_of_the_library_are_played_and_no_others(songs, embedder, library):
    import gradio
    from app import Demo

    demo = Demo(embedder, library=library)
    rate, samples = demo.play("05.flac")
    assert samples.dtype == np.int16 and len(samples) == round(soundfile.info(songs / "05.flac").duration * rate)
    for name in ("../conftest.py", "/etc/passwd", "nothing.flac"):
        with pytest.raises(gradio.Error, match="cannot be played"):
            demo.play(name)
    demo.results.cleanup()


def test_a_library_without_recordings_is_refused(tmp_path):
    from analysis import open_library

    with pytest.raises(ValueError, match="no recordings|no audio"):
        open_library(tmp_path, "mert-nano", tmp_path / "index")


def test_map_of_the_library():
    from analysis import projection, short_names
    from figures import library_map

    draws = np.random.default_rng(0)
    far = np.concatenate([draws.standard_normal((20, 8)), draws.standard_normal((20, 8)) + 9])
    points = projection(far)
    assert points.shape == (40, 2)
    assert (points[:20, 0].max() < points[20:, 0].min()) or (points[:20, 0].min() > points[20:, 0].max())
    figure = library_map(points, [f"folder{index % 12}" for index in range(40)])
    assert "other folders" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert short_names(["/m/a/1.mp3", "/m/b/2.mp3"]) == {"a/1.mp3": "/m/a/1.mp3", "b/2.mp3": "/m/b/2.mp3"}


def test_the_page_shows_everything_about_an_upload(songs, embedder, classifier, library):
    from app import Demo, build

    demo = Demo(embedder, pipeline("audio-classification", model=str(classifier)), library)
    page = build(demo)
    summary, file, scores, similar, *pictures = demo.analyze(str(songs / "03.flac"))
    assert summary.endswith("1 windows x 3 layers x 32 dimensions.")
    assert np.load(file).shape == (1, 3, 32)
    assert set(scores) == {"calm", "loud", "strange"} and sum(scores.values()) == pytest.approx(1, abs=1e-5)
    assert similar[0] == ["03.flac", 1.0] and len(pictures) == 3
    assert len(page.fns) == 2  # analyze, play
    demo.results.cleanup()


def test_refusals_reach_the_page_without_paths(songs, embedder, tmp_path):
    import gradio
    from app import Demo

    (tmp_path / "notes.mp3").write_text("not music")
    demo = Demo(embedder)
    with pytest.raises(gradio.Error, match="notes.mp3: not audio") as caught:
        demo.analyze(str(tmp_path / "notes.mp3"))
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(gradio.Error, match="Choose a recording first"):
        demo.analyze(None)


def test_the_readme_is_a_space():
    header = RepoCard.load(SERVE / "README.md").data
    assert header.sdk == "gradio" and (SERVE / header.app_file).is_file()
    assert "mert_hf" in (SERVE / "requirements.txt").read_text()


# In a browser


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="driving the browser needs selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1600"):
        options.add_argument(argument)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture
def served(songs, tiny_checkpoint, classifier, tmp_path):
    """The app as its one command starts it, limited to 2 MB."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(SERVE / "app.py"), "--model", str(tiny_checkpoint), "--port", str(port)]
    command += ["--classifier", str(classifier), "--library", str(songs), "--max-megabytes", "2"]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(tmp_path / "uploads")}
    log = tmp_path / "app.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
        try:
            yield wait_for(f"http://127.0.0.1:{port}/", process, log)
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urlopen(address, timeout=5):
                return address
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the app did not answer within {START_SECONDS} s:\n{log.read_text()}")


def tone(tmp_path: Path, seconds: float) -> Path:
    """A recording of one tone."""
    sound = 0.2 * np.sin(2 * np.pi * 330 * np.arange(int(seconds * 22050)) / 22050)
    soundfile.write(tmp_path / "tone.wav", sound, 22050)
    return tmp_path / "tone.wav"


@pytest.mark.slow
def test_upload_and_results_in_a_browser(browser, served, audio_dir, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    upload = audio_dir / "orchestral_stereo_44k.flac"
    seconds = soundfile.info(upload).duration

    def text(selector: str) -> str:
        return "\n".join(element.text for element in browser.find_elements(By.CSS_SELECTOR, selector))

    wait = WebDriverWait(browser, ANSWER_SECONDS)
    browser.get(served)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#recording input[type=file]"))
    browser.find_element(By.CSS_SELECTOR, "#recording input[type=file]").send_keys(str(upload))
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#recording #waveform, #recording .waveform-container"))
    browser.find_element(By.ID, "analyze").click()
    wait.until(lambda _: f"{seconds:.1f} seconds" in text("#summary"))
    wait.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#waveform img, #spectrum img, #layers img")) == 3)
    browser.save_screenshot(str(tmp_path / "page.png"))
    assert "3 layers x 32 dimensions" in text("#summary")
    assert all(name in text("#labels") for name in ("calm", "loud", "strange"))
    assert ".flac" in text("#similar") and ".npy" in text("#embeddings")
    cells = browser.find_elements(By.CSS_SELECTOR, "#similar [data-testid^='cell-']")
    cell = next(element for element in cells if element.is_displayed() and ".flac" in element.text)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    cell.click()
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#player .waveform-container, #player audio[src]"))
    for picture in browser.find_elements(By.CSS_SELECTOR, "#waveform img, #spectrum img, #layers img"):
        assert browser.execute_script("return arguments[0].naturalWidth", picture) > 300


@pytest.mark.slow
def test_players_are_answered_at_the_address_of_the_page(served):
    with urlopen(f"{served}health") as reply:
        assert json.load(reply)["songs"] == 24
    with urlopen(f"{served}rest/getOpenSubsonicExtensions") as reply:
        assert json.load(reply)["subsonic-response"]["status"] == "ok"


@pytest.mark.slow
def test_the_map_in_a_browser(browser, served, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, ANSWER_SECONDS)
    browser.get(served)
    tabs = "//button[@role='tab'][contains(., 'Map of the library')]"  # a hidden copy measures the width
    wait.until(lambda b: [tab for tab in b.find_elements(By.XPATH, tabs) if tab.is_displayed()])[0].click()
    (picture,) = wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#map img"))
    wait.until(lambda b: b.execute_script("return arguments[0].naturalWidth", picture) > 300)
    browser.save_screenshot(str(tmp_path / "map.png"))
    assert "24 recordings" in browser.page_source


@pytest.mark.slow
def test_a_large_upload_is_refused_in_a_browser(browser, served, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, ANSWER_SECONDS)
    browser.get(served)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#recording input[type=file]"))
    browser.find_element(By.CSS_SELECTOR, "#recording input[type=file]").send_keys(str(tone(tmp_path, 80)))
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#recording .waveform-container"))
    browser.find_element(By.ID, "analyze").click()
    wait.until(lambda b: "This file has 3.5 MB; at most 2 MB are taken" in b.page_source)
