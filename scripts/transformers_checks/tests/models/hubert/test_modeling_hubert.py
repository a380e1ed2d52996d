"""HuBERT under the tests of MERT, to compare the counts."""

from transformers import HubertConfig, HubertForSequenceClassification, HubertModel

from ..mert import test_modeling_mert as mert  # not by name: its test classes would be collected here as well


class HubertModelTester(mert.MertModelTester):
    config_class = HubertConfig


class HubertModelTest(mert.MertModelTest):
    all_model_classes = (HubertModel, HubertForSequenceClassification)
    pipeline_model_mapping = {
        "audio-classification": HubertForSequenceClassification,
        "feature-extraction": HubertModel,
    }
    model_tester_class = HubertModelTester
