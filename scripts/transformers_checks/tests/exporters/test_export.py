"""Stand-in for a module of transformers' tests that source distributions lack: MERT has no exporter of its own."""


class ExportTesterMixin:
    """No tests."""
