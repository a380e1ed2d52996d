"""Pre-training: random crops, labels, noise mixture and span masks in the collator; trainer, callbacks, whole runs."""
