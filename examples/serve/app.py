"""A small Gradio app: embed a recording, label it, find similar ones, and look inside the model.

    python examples/serve/app.py --classifier runs/genre --library my_index

`--library` takes an index (`mert-hf index`), or a folder of recordings, which is indexed at the start; the page is then
mounted on the server of `mert-hf serve`. As a Hub Space the page is alone, and takes the same settings from the
variables MERT_MODEL, MERT_CLASSIFIER and MERT_LIBRARY.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
import numpy as np
from analysis import Limits, embed, label, layer_similarity, open_library, projection, short_names
from figures import layers, library_map, spectrum, waveform
from transformers import Pipeline, pipeline

from mert_hf import MERTEmbedder
from mert_hf.audio import read_audio
from mert_hf.hub import DEFAULT_CHECKPOINT
from mert_hf.search import MusicIndex
from mert_hf.serve import Library, ServeSettings, create_app, run

FONT = ("system-ui", "sans-serif")  # Gradio's own fonts come from the network
KEEP_SECONDS = 3600  # uploads and results
PLAYED_RATE, PLAYED_SECONDS = 24000, 600.0
NO_CLASSIFIER = "No fine-tuned head is loaded: start the app with --classifier DIR."
NO_LIBRARY = "No library is loaded: start the app with --library DIR."


@dataclass
class Demo:
    """Models and data of the page.

    Args:
        embedder: the encoder.
        classify: an audio-classification pipeline with a fine-tuned head, or None.
        library: index of the recordings to compare with, or None.
        limits: what an upload may be.
    """

    embedder: MERTEmbedder
    classify: Pipeline | None = None
    library: MusicIndex | None = None
    limits: Limits = field(default_factory=Limits)
    results: tempfile.TemporaryDirectory = field(default_factory=lambda: tempfile.TemporaryDirectory(prefix="mert-"))

    def __post_init__(self) -> None:
        self.names = short_names(self.library.paths()) if self.library else {}

    def analyze(self, path: str | None) -> tuple:
        """Everything the page shows about an upload, in the order of its components.

        Raises:
            gr.Error: the upload is refused; the page shows the message.
        """
        try:
            seconds = self.limits.check(path)
            embeddings = embed(self.embedder, path)
        except ValueError as error:
            message = str(error).replace(
                str(path), Path(path or "").name
            )  # the visitor knows the name, not our folders
            raise gr.Error(message, print_exception=False) from error
        windows, num_layers, hidden = embeddings.shape
        summary = f"{seconds:.1f} seconds: {windows} windows x {num_layers} layers x {hidden} dimensions."
        scores = label(self.classify, path) if self.classify else {}
        similar = self.similar(path) if self.library else []
        pictures = waveform(path), spectrum(path), layers(layer_similarity(self.embedder, path))
        return summary, self.save(embeddings), scores, similar, *pictures

    def similar(self, path: str) -> list[list]:
        """Names and similarities of the recordings of the library that are nearest to a file, nearest first."""
        names = {path: name for name, path in self.names.items()}
        return [[names[match.path], match.similarity] for match in self.library.search(path, top_k=5)]

    def play(self, name: str) -> tuple[int, np.ndarray]:
        """Sampling rate and samples (samples,) int16 of the first ten minutes of a recording of the library.

        Raises:
            gr.Error: the library does not hold it, or it cannot be read.
        """
        try:
            samples = read_audio(self.names[name], PLAYED_RATE, duration=PLAYED_SECONDS)
        except (KeyError, ValueError, OSError) as error:
            raise gr.Error(f"{name} cannot be played.", print_exception=False) from error
        return PLAYED_RATE, (np.clip(samples, -1, 1) * 32767).astype(np.int16)

    def play_selected(self, event: gr.SelectData) -> tuple[int, np.ndarray]:
        """The recording in the row that the visitor has clicked."""
        return self.play(event.row_value[0])

    def map(self):
        """The figure of the library: a point for each recording, a color for each folder."""
        return library_map(projection(self.library.vectors()), [os.path.dirname(name) for name in self.names])

    def save(self, embeddings: np.ndarray) -> str:
        """Writes embeddings (windows, layers, hidden) as .npy and returns the file's path; old files are deleted."""
        for file in Path(self.results.name).iterdir():
            if time.time() - file.stat().st_mtime > KEEP_SECONDS:
                file.unlink()
        with tempfile.NamedTemporaryFile(dir=self.results.name, suffix=".npy", delete=False) as file:
            np.save(file, embeddings)
        return file.name


def build(demo: Demo) -> gr.Blocks:
    """The app: a page for uploads, and a map of the library."""
    limits = demo.limits
    with gr.Blocks(title="MERT", analytics_enabled=False, delete_cache=(600, KEEP_SECONDS)) as app:
        gr.Markdown(
            "# MERT: music representations\nUpload a recording of any length, "
            f"up to {limits.megabytes:g} MB. It is deleted after an hour."
        )
        with gr.Tab("Recording"):
            build_analysis(demo)
        with gr.Tab("Map of the library", elem_id="map-tab"):
            if demo.library is None:
                gr.Markdown(NO_LIBRARY)
            else:
                gr.Markdown(f"{len(demo.names)} recordings. Near points are similar; colors are folders.")
                gr.Plot(demo.map(), show_label=False, elem_id="map")
    return app


def build_analysis(demo: Demo) -> None:
    """Upload, results, and a player for the recordings that are listed."""
    with gr.Column():
        recording = gr.Audio(type="filepath", sources=["upload", "microphone"], label="Recording", elem_id="recording")
        button = gr.Button("Analyze", variant="primary", elem_id="analyze")
        summary = gr.Markdown(elem_id="summary")
        with gr.Row():
            with gr.Column():
                scores = gr.Label(label="Labels", num_top_classes=5, elem_id="labels")
                if demo.classify is None:
                    gr.Markdown(NO_CLASSIFIER)
            with gr.Column():
                similar = gr.Dataframe(headers=["Recording", "Similarity"], label="Most similar", elem_id="similar")
                if demo.library is None:
                    gr.Markdown(NO_LIBRARY)
                else:
                    gr.Markdown("Click a recording to hear it.")
                    player = gr.Audio(label="Player", interactive=False, elem_id="player")
                    similar.select(demo.play_selected, None, player)
        pictures = [gr.Plot(show_label=False, elem_id=name) for name in ("waveform", "spectrum", "layers")]
        embeddings = gr.File(label="Embeddings (NumPy, windows x layers x dimensions)", elem_id="embeddings")
        button.click(demo.analyze, recording, [summary, embeddings, scores, similar, *pictures])


def load(model: str, classifier: str | None, library: str | None, limits: Limits) -> Demo:
    """Loads the models and opens the library."""
    embedder = MERTEmbedder.from_pretrained(model)
    classify = pipeline("audio-classification", model=classifier) if classifier else None
    cache = Path(tempfile.mkdtemp(prefix="mert-index-"))
    return Demo(embedder, classify, open_library(library, model, cache) if library else None, limits)


def start(demo: Demo, host: str, port: int) -> None:
    """Runs the page: on the server of `mert-hf serve` where there is a library to ask, else alone."""
    page = build(demo).queue(max_size=20, default_concurrency_limit=1)
    # The server refuses far larger uploads while they arrive; those just above the limit get the app's own message.
    most = 2 * demo.limits.megabytes
    look = {"max_file_size": int(most * 1e6), "theme": gr.themes.Default(font=FONT, font_mono=("monospace",))}
    if demo.library is None or "SPACE_ID" in os.environ:
        page.launch(server_name=host, server_port=port, **look)
        return
    settings = ServeSettings(host=host, port=port, max_megabytes=most)
    library = Library(demo.library.folder, settings)
    demo.library = library.state.index  # one for both
    run(gr.mount_gradio_app(create_app(library), page, path="/", **look), settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("MERT_MODEL", DEFAULT_CHECKPOINT), help="Encoder.")
    parser.add_argument("--classifier", default=os.environ.get("MERT_CLASSIFIER"), help="Result of mert-hf finetune.")
    parser.add_argument("--library", default=os.environ.get("MERT_LIBRARY"), help="Index or folder of recordings.")
    parser.add_argument("--max-megabytes", type=float, default=Limits.megabytes, help="Largest upload.")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="Address.")
    parser.add_argument("--port", type=int, default=7860, help="Port.")
    arguments = parser.parse_args()
    limits = Limits(arguments.max_megabytes)
    start(load(arguments.model, arguments.classifier, arguments.library, limits), arguments.host, arguments.port)


if __name__ == "__main__":
    main()
