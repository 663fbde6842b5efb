"""Whisper's forward pass on Hugging Face weights: features, encoder, decoder."""
