"""The files that travel to the Hub with each checkpoint: configuration, model, feature extractor."""
