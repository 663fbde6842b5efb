"""The worker: a process that transcribes recordings and uploaded files after the fact, as batch jobs."""
