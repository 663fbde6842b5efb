"""Finishes what other processes left unfinished: on start, after a crash, on a resume, and by command."""
