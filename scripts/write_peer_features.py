"""Features of MusiCNN, for `mert-hf evaluate --features`, in an environment of its own: it computes with TensorFlow.

    python -m venv musicnn
    musicnn/bin/pip install tensorflow tf_keras librosa soundfile
    musicnn/bin/pip install --no-deps musicnn
    musicnn/bin/python scripts/write_peer_features.py RECORDINGS --output FEATURES
    mert-hf evaluate audiofolder --data RECORDINGS --features FEATURES --name musicnn ...
    mert-hf fit-features --data RECORDINGS --encoder features:FEATURES:0 ...    # with --patches: a teacher

Pons and Serra, "musicnn: Pre-trained convolutional neural networks for music audio tagging" (arXiv 1909.06654), ISC.
The package's own function defines the network. Its `extractor` builds it anew for each file, refuses recordings shorter
than a patch of 3 s, and multiplies in float16, which overflows and gives NaN for loud recordings; here the network is
built once, short recordings are padded with silence, and the logarithm is taken in float32. For each recording NAME.wav
the file NAME.npy holds (outputs, values), means over patches, or with --patches (patches, outputs, values).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # the package's layers are gone from Keras 3

import numpy as np

PATCH = 187  # frames, 3 s
OUTPUTS = ("timbral", "temporal", "cnn1", "cnn2", "cnn3", "mean_pool", "max_pool", "penultimate")


def main() -> None:
    """Parses the command line and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="MTT_musicnn", choices=["MTT_musicnn", "MSD_musicnn"])
    parser.add_argument(
        "--outputs", nargs="+", default=["mean_pool", "max_pool"], choices=OUTPUTS, help="of the same size, as layers"
    )
    parser.add_argument("--patches", action="store_true", help="keep the values of each patch of 3 s")
    arguments = parser.parse_args()
    run = load(arguments.model, arguments.outputs)
    files = sorted(path for path in arguments.recordings.rglob("*") if path.suffix in (".wav", ".flac", ".ogg", ".mp3"))
    for number, path in enumerate(files, 1):
        target = arguments.output / path.relative_to(arguments.recordings).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        values = run(path)
        np.save(target, values if arguments.patches else values.mean(axis=0))
        print(f"\r{number} of {len(files)}", end="", flush=True)
    print()


def load(name: str, outputs: list[str]) -> Callable[[Path], np.ndarray]:
    """A function from a file to (patches, outputs, values) float32."""
    import tensorflow
    from musicnn import configuration, extractor, models

    v1 = tensorflow.compat.v1
    patches = v1.placeholder(tensorflow.float32, [None, PATCH, configuration.N_MELS])
    training = v1.placeholder(tensorflow.bool)
    with tensorflow.name_scope("model"):
        labels = configuration.MTT_LABELS if name.startswith("MTT") else configuration.MSD_LABELS
        _, *tensors = models.define_model(patches, training, name, len(labels))
    session = v1.Session()
    v1.train.Saver().restore(session, f"{Path(extractor.__file__).parent / name}/")
    wanted = [dict(zip(OUTPUTS, tensors, strict=True))[output] for output in outputs]

    def run(path: Path) -> np.ndarray:
        batch = read_patches(path, configuration)
        values = session.run(wanted, {patches: batch, training: False})
        return np.stack([value.reshape(len(batch), -1, value.shape[-1]).mean(axis=1) for value in values], axis=1)

    return run


def read_patches(path: Path, configuration: ModuleType) -> np.ndarray:
    """(patches, frames, bands) of a file, as `musicnn.extractor.batch_data` makes them but for the precision."""
    import librosa

    samples, rate = librosa.load(path, sr=configuration.SR)
    samples = np.pad(samples, (0, max(0, PATCH * configuration.FFT_HOP - len(samples))))
    options = {"hop_length": configuration.FFT_HOP, "n_fft": configuration.FFT_SIZE, "n_mels": configuration.N_MELS}
    mel = librosa.feature.melspectrogram(y=samples, sr=rate, **options).T.astype(np.float16)
    frames = np.log10(10000 * mel.astype(np.float32) + 1)
    count = len(frames) // PATCH
    return frames[: count * PATCH].reshape(count, PATCH, -1)


if __name__ == "__main__":
    main()
