"""Small heads on a frozen encoder that answer for a recording: key and tempo.

A head is a two-layer network on features of a window of hidden states. Its outputs are averaged over the windows of a
recording, divided by a temperature that was fitted to held-out recordings, and become probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ..hub.names import DEFAULT_CHECKPOINT
from ..utils.files import read_json, staged_file, write_json

FOLDER = Path(__file__).resolve().parents[1] / "hub" / "checkpoints" / f"{DEFAULT_CHECKPOINT}-heads"
WEIGHTS = ("mean", "scale", "weight1", "bias1", "weight2", "bias2")
LONGEST_LAG = 75  # frames: 3 s at 25 Hz
TEMPO_STEP = 1.03  # from one label of a tempo to the next, less than the 4 % within which a tempo is right


def statistics(frames: np.ndarray) -> np.ndarray:
    """Hidden states (frames, layers, hidden) -> (2 layers hidden,): mean and standard deviation over time."""
    return np.concatenate([frames.mean(axis=0).reshape(-1), frames.std(axis=0).reshape(-1)]).astype(np.float32)


def rhythm(frames: np.ndarray) -> np.ndarray:
    """Hidden states (frames, layers, hidden) -> (2 layers lags,): how alike frames are that are a lag apart.

    Autocorrelation of the standardized states, and of the increases from frame to frame, averaged over the dimensions;
    frames that a window does not have count as 0.
    """
    found = []
    for series in (frames, np.maximum(np.diff(frames, axis=0), 0)):
        centered = series - series.mean(axis=0)
        scaled = centered / (centered.std(axis=0) + 1e-6)
        power = np.abs(np.fft.rfft(scaled, 2 * max(len(scaled), LONGEST_LAG + 1), axis=0)) ** 2
        sums = np.fft.irfft(power.mean(axis=-1), axis=0)[1 : LONGEST_LAG + 1]
        counts = np.maximum(len(scaled) - np.arange(1, LONGEST_LAG + 1), 1)
        found.append((sums / counts[:, None]).T.reshape(-1))
    return np.concatenate(found).astype(np.float32)


FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"key": statistics, "tempo": rhythm}


@dataclass(frozen=True)
class Prediction:
    """The answer for a recording.

    The confidence is the probability that it is right, from 0 to 1; of several labels, that of the least certain one;
    None where the model has none.
    """

    texts: tuple[str, ...]  # a key of `mert_hf.recordings.targets.KEYS`, beats a minute with one decimal, or labels
    confidence: float | None


@dataclass(frozen=True, eq=False)
class TagHead:
    """A head for one tag.

    Attributes:
        name: "key" or "tempo".
        labels: of the outputs: keys, or beats a minute in steps of 3 %.
        encoder: fingerprint of the encoder that it was trained on.
        layers: layers of that encoder, counted from 0.
        window: seconds of a window.
        temperature: the outputs are divided by it.
        confidence: lowest confidence at which a prediction is written, by default.
        measured: what was measured with it.
        weights: arrays by the names in `WEIGHTS`.
    """

    name: str
    labels: tuple[str, ...]
    encoder: str
    layers: tuple[int, ...]
    window: float
    temperature: float
    confidence: float
    measured: dict[str, float] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def outputs(self, frames: np.ndarray) -> np.ndarray:
        """Hidden states of a window (frames, layers, hidden) -> (labels,) float32."""
        return self.logits(FEATURES[self.name](frames))

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Features (..., values), as `FEATURES` computes them -> (..., labels)."""
        weights = self.weights
        hidden = (features - weights["mean"]) / weights["scale"] @ weights["weight1"] + weights["bias1"]
        return np.maximum(hidden, 0) @ weights["weight2"] + weights["bias2"]

    def answer(self, outputs: Sequence[np.ndarray]) -> Prediction:
        """The prediction for a recording from the outputs of its windows."""
        logits = np.mean(outputs, axis=0) / self.temperature
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        if self.name == "key":
            best = int(scores.argmax())
            return Prediction((self.labels[best],), float(scores[best]))
        around = np.convolve(scores, np.ones(3), mode="same")  # 3 % to each side
        best = int(around.argmax())
        near = slice(max(best - 1, 0), best + 2)
        tempi = np.log(np.array(self.labels[near], float))
        tempo = np.exp((tempi * scores[near]).sum() / scores[near].sum())
        return Prediction((f"{tempo:.1f}",), float(around[best]))

    def save(self, folder: Path) -> None:
        """Writes `NAME.safetensors`, in float16, and `NAME.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        with staged_file(folder / f"{self.name}.safetensors") as part:
            save_file({name: np.ascontiguousarray(self.weights[name], np.float16) for name in WEIGHTS}, part)
        facts = {name: value for name, value in asdict(self).items() if name not in ("weights", "name")}
        write_json(folder / f"{self.name}.json", facts)

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> TagHead:
        """The head of a folder, the bundled one if None. Raises ValueError where it is missing or damaged."""
        folder = FOLDER if folder is None else folder
        facts = read_json(folder / f"{name}.json")
        weights = {key: value.astype(np.float32) for key, value in load_file(folder / f"{name}.safetensors").items()}
        lists = {key: tuple(facts.pop(key)) for key in ("labels", "layers")}
        return cls(name, **facts, **lists, weights=weights)

    def check(self, fingerprint: str) -> None:
        """Raises ValueError where an encoder of this fingerprint is not the one that the head was trained on."""
        if fingerprint != self.encoder:
            raise ValueError(
                f"The head for {self.name} was trained on other weights than those of {DEFAULT_CHECKPOINT} in this "
                "installation. Install mert_hf again, or train the heads anew: python scripts/train_tag_heads.py"
            )
