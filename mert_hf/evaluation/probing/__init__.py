"""Frozen features -> probes -> results."""
