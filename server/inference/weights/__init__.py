"""Weights of a configured model: found, fetched, converted once, and ready as a Hugging Face directory."""

from server.inference.weights.sources import resolve

__all__ = ["resolve"]
