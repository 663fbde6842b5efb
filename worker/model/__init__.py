"""The models, in a child process of the worker: its start, its end, and the conversation with it (docs/adr/0109)."""
