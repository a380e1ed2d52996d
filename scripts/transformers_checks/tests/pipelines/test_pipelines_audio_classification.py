"""Stand-in for a module of transformers' tests that source distributions lack."""

import numpy as np
from transformers.pipelines import AudioClassificationPipeline


class AudioClassificationPipelineTests:
    """The methods that `PipelineTesterMixin` calls."""

    def get_test_pipeline(self, model, tokenizer=None, feature_extractor=None, dtype="float32", **processors):
        pipeline = AudioClassificationPipeline(model=model, feature_extractor=feature_extractor, dtype=dtype)
        return pipeline, [np.zeros(14000), np.sin(np.arange(34000) / 10)]

    def run_pipeline_test(self, pipeline, examples):
        for audio in examples:
            every = pipeline(audio)
            assert [set(label) for label in every] == [{"score", "label"}] * pipeline.model.config.num_labels, every
            assert abs(sum(label["score"] for label in every) - 1) < 1e-2, every
            assert pipeline(audio, top_k=1) == every[:1]
