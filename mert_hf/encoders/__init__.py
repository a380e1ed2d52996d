"""The spine: clips in, hidden states out, through one interface for every kind of encoder."""
