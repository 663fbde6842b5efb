"""Decoding of a batch of utterances to hypotheses: beam search, token rules, hallucination guard, word times."""
