"""The weights of a configured model: located, downloaded, converted once, as a Hugging Face directory."""

from server.inference.weights.sources import resolve

__all__ = ["resolve"]
