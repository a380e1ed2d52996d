"""Saves tiny models for the pipeline tests of a transformers tree, which would load them from the Hub.

PYTHONPATH=TREE/src python scripts/transformers_checks/tiny_models.py OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import transformers

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
CONVOLUTIONS = {"conv_dim": (8, 8, 8), "conv_stride": (8, 4, 4), "conv_kernel": (8, 8, 8)}
CONVOLUTIONS |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
FIELDS = {
    "Hubert": CONVOLUTIONS,
    "Mert": CONVOLUTIONS,
    "Mert2": {"num_mel_bins": 8, "subsampling_channels": (8, 12, 16), "subsampling_depths": (1, 1, 1)},
}


def main() -> None:
    out, summary = Path(sys.argv[1]), {}
    for name, fields in FIELDS.items():
        config = getattr(transformers, f"{name}Config")(**SIZES, **fields)
        architecture = f"{name}ForSequenceClassification"
        folder = out / config.model_type / architecture
        getattr(transformers, architecture)(config).save_pretrained(folder)
        extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=24_000, return_attention_mask=True)
        extractor.save_pretrained(folder)
        summary[architecture] = {"tokenizer_classes": [], "processor_classes": [type(extractor).__name__]}
    (out / "reports").mkdir(exist_ok=True)
    (out / "reports/tiny_model_summary.json").write_text(json.dumps(summary))


if __name__ == "__main__":
    main()
