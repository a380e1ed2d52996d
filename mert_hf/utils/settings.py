"""Layers as a command line names them: `all`, `weighted`, or numbers."""

from __future__ import annotations

from collections.abc import Sequence

ALL = "all"
WEIGHTED = "weighted"


def parse_layers(text: str, allowed: Sequence[str] = (ALL, WEIGHTED)) -> list[int | str]:
    """Layers from the words of a command line.

    Args:
        text: "all" (each layer), "weighted" (the learned average of all layers) and numbers, separated by commas; 0 is
            the encoder's input, -1 the last layer.
        allowed: the words that may be given in addition to numbers.

    Returns:
        The numbers and words in their order.

    Raises:
        ValueError: anything else, or nothing.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        layers = [word if word in allowed else int(word) for word in words]
    except ValueError:
        layers = []
    if not layers:
        raise ValueError(f"layers={text!r} must be {', '.join(allowed)}, or numbers such as 7 or 5,7,9.")
    return layers
