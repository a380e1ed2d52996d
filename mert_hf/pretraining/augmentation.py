"""Changes of the sound that leave the music as it is: gain, equalizer, room and MP3, for the student's input only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..audio.effects import compress_mp3, equalize, reverberate

EQUALIZER_POINTS = 6


@dataclass
class InputAugmentation:
    """Changes the sound of a clip; its targets must come from the clean clip, from which frames are not moved.

    Each of the four changes is made with `probability`, in this order; 0 as its size turns one off.

    Args:
        probability: probability of each change, 0 to 1.
        equalizer: standard deviation in dB of the gain at six frequencies, spaced evenly in logarithm from 60 Hz to
            the Nyquist frequency; in between it is interpolated.
        room: longest reverberation in seconds (decay by 60 dB), drawn from a quarter of it upwards. White noise that
            decays exponentially follows the direct sound, 0 to 15 dB weaker in energy.
        mp3: strongest compression of MP3, from 0 (none) to 0.99 (nearly the lowest bit rate).
        gain: lowest and highest gain in dB.

    Raises:
        ValueError: a size is out of range.
    """

    probability: float = 0.3
    equalizer: float = 6.0
    room: float = 0.6
    mp3: float = 0.8
    gain: Sequence[float] = (-12.0, 6.0)

    def __post_init__(self):
        for name, highest in {"probability": 1.0, "equalizer": 40.0, "room": 10.0, "mp3": 0.99}.items():
            if not 0.0 <= getattr(self, name) <= highest:
                raise ValueError(f"{name}={getattr(self, name)!r} must lie between 0 and {highest:g}.")
        self.gain = tuple(float(bound) for bound in self.gain)
        if len(self.gain) != 2 or not -100.0 <= self.gain[0] <= self.gain[1] <= 100.0:
            raise ValueError(f"gain={self.gain} must be two numbers in dB, the lower one first, from -100 to 100.")

    def __call__(
        self, waveform: torch.Tensor, sampling_rate: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """A changed copy of a clip.

        Args:
            waveform: (samples,) float32.
            sampling_rate: in Hz.
            generator: source of randomness; torch's default generator if None.

        Returns:
            (samples,) float32; may exceed 1 in magnitude.
        """

        def draw(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        changed = waveform.clone()
        if self.equalizer and draw(0, 1) < self.probability:
            decibels = self.equalizer * torch.randn(EQUALIZER_POINTS, generator=generator)
            changed = equalize(changed, sampling_rate, decibels)
        if self.room and draw(0, 1) < self.probability:
            tail = torch.randn(round(self.room * sampling_rate), generator=generator)
            changed = reverberate(changed, sampling_rate, tail, draw(self.room / 4, self.room), draw(-15, 0))
        if self.mp3 and draw(0, 1) < self.probability:
            changed = torch.from_numpy(compress_mp3(changed.numpy(), sampling_rate, draw(0, self.mp3)))
        if any(self.gain) and draw(0, 1) < self.probability:
            changed = changed * 10 ** (draw(*self.gain) / 20)
        return changed
