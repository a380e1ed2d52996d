"""MERT, the self-supervised music understanding model, for the Hugging Face ecosystem."""
