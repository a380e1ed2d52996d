"""The examples in the docstrings of the public classes run and print what they show."""

import doctest

import pytest
import torch

import mert_hf
from mert_hf.modeling.cqt_mert import MERTConstantQTransform

CLASSES = [
    mert_hf.MERTConfig,
    mert_hf.MERTFeatureExtractor,
    mert_hf.MERTModel,
    mert_hf.MERTForPreTraining,
    mert_hf.MERTForSequenceClassification,
    mert_hf.MERTForAudioFrameClassification,
    MERTConstantQTransform,
]


@pytest.mark.parametrize("documented", CLASSES, ids=lambda documented: documented.__name__)
def test_examples_run(documented, generator):
    text = documented.__doc__.replace("```python", "").replace("```", "")
    example = doctest.DocTestParser().get_doctest(text, {}, documented.__name__, None, 0)
    assert example.examples, "there is no example"
    report = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        results = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert not results.failed, "".join(report)
