"""Hand-made features behind the same probe: what a trained model must beat.

`mfcc`, `chroma` and `mel` are the features of `mert_hf.teachers.features`, one "layer" each. A chunk is described by mean
and standard deviation over its frames, a frame by its values.
"""

from __future__ import annotations

BASELINES: dict[str, object] = {}


class FeatureBaseline:
    pass
