"""Fixtures of the tests of corpora, some of which train."""

from tiny_pretraining import recordings, tiny_run  # noqa: F401
