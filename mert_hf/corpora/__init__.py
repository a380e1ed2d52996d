"""Unlabeled audio for pre-training: sources, crops, shards, codes made ahead, streaming."""
