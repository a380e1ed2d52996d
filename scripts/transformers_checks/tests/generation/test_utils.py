"""Stand-in for a module of transformers' tests that source distributions lack: MERT generates nothing."""


class GenerationTesterMixin:
    """No tests."""
