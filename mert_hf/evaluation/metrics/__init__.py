"""Metrics, each once, and their intervals and tests."""
