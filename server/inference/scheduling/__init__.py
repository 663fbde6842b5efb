"""Which utterance the model does next: the queue, the batches and the one thread that owns the models."""
