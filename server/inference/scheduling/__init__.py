"""Scheduling of utterances: the queue, the batches and the one thread that owns the models."""
