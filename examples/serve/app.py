"""A small Gradio app: embed a recording, label it, find similar ones, and look inside the model.

    python examples/serve/app.py --model m-a-p/MERT-v1-95M --classifier runs/genre --library my_songs

As a Hub Space it takes the same settings from the variables MERT_MODEL, MERT_CLASSIFIER and MERT_LIBRARY.
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
from analysis import Library, Limits, embed, label, layer_similarity, middle_layer
from figures import layers, spectrum, waveform
from transformers import Pipeline, pipeline

from mert_hf import MERTEmbedder

FONT = ("system-ui", "sans-serif")  # Gradio's own fonts come from the network
KEEP_SECONDS = 3600  # uploads and results
NO_CLASSIFIER = "No fine-tuned head is loaded: start the app with --classifier DIR."
NO_LIBRARY = "No library is loaded: start the app with --library DIR."


@dataclass
class Demo:
    """Models and data behind the page.

    Args:
        embedder: the encoder.
        classify: an audio-classification pipeline with a fine-tuned head, or None.
        library: recordings to compare with, or None.
        limits: what an upload may be.
    """

    embedder: MERTEmbedder
    classify: Pipeline | None = None
    library: Library | None = None
    limits: Limits = field(default_factory=Limits)
    results: tempfile.TemporaryDirectory = field(default_factory=lambda: tempfile.TemporaryDirectory(prefix="mert-"))

    def analyse(self, path: str | None) -> tuple:
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
        similar = self.library.most_similar(middle_layer(embeddings)) if self.library else []
        pictures = waveform(path), spectrum(path), layers(layer_similarity(self.embedder, path))
        return summary, self.save(embeddings), scores, similar, *pictures

    def save(self, embeddings: np.ndarray) -> str:
        """Writes embeddings (windows, layers, hidden) as .npy and returns the file's path; old files are deleted."""
        for file in Path(self.results.name).iterdir():
            if time.time() - file.stat().st_mtime > KEEP_SECONDS:
                file.unlink()
        with tempfile.NamedTemporaryFile(dir=self.results.name, suffix=".npy", delete=False) as file:
            np.save(file, embeddings)
        return file.name


def build(demo: Demo) -> gr.Blocks:
    """The page."""
    limits = demo.limits
    with gr.Blocks(title="MERT", analytics_enabled=False, delete_cache=(600, KEEP_SECONDS)) as page:
        gr.Markdown(
            "# MERT: music representations\nUpload a recording, "
            f"up to {limits.seconds:g} seconds and {limits.megabytes:g} MB. It is deleted after an hour."
        )
        recording = gr.Audio(type="filepath", sources=["upload", "microphone"], label="Recording", elem_id="recording")
        button = gr.Button("Analyse", variant="primary", elem_id="analyse")
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
        pictures = [gr.Plot(show_label=False, elem_id=name) for name in ("waveform", "spectrum", "layers")]
        embeddings = gr.File(label="Embeddings (NumPy, windows x layers x dimensions)", elem_id="embeddings")
        button.click(demo.analyse, recording, [summary, embeddings, scores, similar, *pictures])
    return page


def load(model: str, classifier: str | None, library: str | None, limits: Limits) -> Demo:
    """Loads the models and indexes the library."""
    embedder = MERTEmbedder.from_pretrained(model)
    classify = pipeline("audio-classification", model=classifier) if classifier else None
    return Demo(embedder, classify, Library.index(library, embedder) if library else None, limits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("MERT_MODEL", "m-a-p/MERT-v1-95M"), help="encoder")
    parser.add_argument("--classifier", default=os.environ.get("MERT_CLASSIFIER"), help="result of mert-hf finetune")
    parser.add_argument("--library", default=os.environ.get("MERT_LIBRARY"), help="folder of recordings to search")
    parser.add_argument("--max-seconds", type=float, default=Limits.seconds, help="longest upload")
    parser.add_argument("--max-megabytes", type=float, default=Limits.megabytes, help="largest upload")
    parser.add_argument("--port", type=int, help="a free port from 7860 on if left out")
    arguments = parser.parse_args()
    limits = Limits(arguments.max_seconds, arguments.max_megabytes)
    page = build(load(arguments.model, arguments.classifier, arguments.library, limits))
    # The server refuses far larger uploads while they arrive; those just above the limit get the app's own message.
    page.queue(max_size=20, default_concurrency_limit=1).launch(
        server_port=arguments.port,
        max_file_size=int(2 * limits.megabytes * 1e6),
        theme=gr.themes.Default(font=FONT, font_mono=("monospace",)),
    )


if __name__ == "__main__":
    main()
