"""MERT in mteb (https://github.com/embeddings-benchmark/mteb): metadata of published and bundled models, a loader.

from mert_hf.benchmarks.mteb import register

register()
mteb.evaluate(mteb.get_model("m-a-p/MERT-v1-95M"), mteb.get_tasks(modalities=["audio"]))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import __version__
from ..embedding import MERTEmbedder
from ..utils.optional import needs_extra

with needs_extra("mteb"):
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_implementations import MODEL_REGISTRY

PAPERS = {
    "2306.00107": """@inproceedings{li2024mert,
  title={{MERT}: Acoustic Music Understanding Model with Large-Scale Self-supervised Training},
  author={Yizhi Li and Ruibin Yuan and Ge Zhang and Yinghao Ma and others},
  booktitle={International Conference on Learning Representations},
  year={2024},
  url={https://arxiv.org/abs/2306.00107}
}""",
    "2609.33757": """@misc{mert2,
  title={{MERT-v2}},
  year={2026},
  eprint={2609.33757},
  archivePrefix={arXiv},
  url={https://arxiv.org/abs/2609.33757}
}""",
}
# name: parameters, values of an embedding, license, date of release where it is known, paper
MODELS = {
    "m-a-p/MERT-v0": (94_371_712, 768, "cc-by-nc-4.0", "2022-12-29", "2306.00107"),
    "m-a-p/MERT-v0-public": (94_371_712, 768, "cc-by-nc-4.0", "2023-03-14", "2306.00107"),
    "m-a-p/MERT-v1-95M": (94_371_712, 768, "cc-by-nc-4.0", "2023-03-17", "2306.00107"),
    "m-a-p/MERT-v1-330M": (315_428_992, 1024, "cc-by-nc-4.0", "2023-03-17", "2306.00107"),
    "m-a-p/MERT-v2-30s": (632_295_808, 1024, "cc-by-nc-4.0", None, "2609.33757"),
    "m-a-p/MERT-v2-FullSong": (632_295_808, 1024, "cc-by-nc-4.0", None, "2609.33757"),
    "mert_hf/mert-nano": (866_544, 128, "apache-2.0", None, "2306.00107"),
    "mert_hf/mert2-nano": (3_055_312, 192, "apache-2.0", None, "2609.33757"),
}


class MERTWrapper(AbsEncoder):
    """Mean over the windows of a recording of the middle layer, which describes music better than the last.

    Audio is resampled and mixed by mert_hf, so that mteb's torchaudio is not needed. Names are those of `MODELS`, and
    whatever `MERTEmbedder.from_pretrained` takes; `window` is in seconds. Other arguments of mteb are not used.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        device: str | None = None,
        layer: int | None = None,
        window: float = 5.0,
        **kwargs: Any,
    ) -> None:
        self.embedder = MERTEmbedder.from_pretrained(model_name.removeprefix("mert_hf/"), device=device)
        self.layer = (self.embedder.num_layers + 1) // 2 if layer is None else layer
        self.window = window

    def encode(self, inputs: Any, *, batch_size: int = 16, show_progress_bar: bool = True, **kwargs: Any) -> np.ndarray:
        """Embeddings (recordings, values) float32 of the audio that a loader of mteb gives."""
        inputs.collate_fn = lambda rows: {"audio": [row["audio"] for row in rows]}
        vectors = []
        for batch in inputs:
            found = self.embedder.encode(
                list(batch["audio"]), [self.layer], window=self.window, batch_size=batch_size, show_progress_bar=False
            )
            vectors += [np.average(item.embeddings[:, 0], axis=0, weights=item.end - item.start) for item in found]
        return np.stack(vectors).astype(np.float32)


def register() -> None:
    """Makes the models known to the installed mteb; those that it knows already stay as they are."""
    for name, (parameters, size, license_name, date, paper) in MODELS.items():
        bundled = name.startswith("mert_hf/")
        meta = ModelMeta(
            loader=MERTWrapper,
            name=name,
            revision=__version__ if bundled else None,  # of models on the Hub the newest one
            release_date=date,
            languages=["zxx-Zxxx"],
            modalities=["audio"],
            n_parameters=parameters,
            n_embedding_parameters=0,
            memory_usage_mb=round(parameters * 4 / 2**20),
            max_tokens=float("inf"),  # recordings of any length, in windows
            embed_dim=size,
            license=license_name,
            open_weights=True,
            public_training_code="https://github.com/yizhilll/MERT" if paper == "2306.00107" and not bundled else None,
            public_training_data=None,
            framework=["PyTorch", "Transformers"],
            reference=f"https://arxiv.org/abs/{paper}" if bundled else f"https://huggingface.co/{name}",
            similarity_fn_name="cosine",
            use_instructions=False,
            training_datasets=set(),  # of mteb's tasks; no published list names any
            citation=PAPERS[paper],
        )
        MODEL_REGISTRY.setdefault(name, meta)
