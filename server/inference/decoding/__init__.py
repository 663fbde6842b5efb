"""From a batch of utterances to hypotheses: beams, rules for tokens, judging, word times."""
