"""The decoder loop: from the encoder's output to one row of tokens per utterance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch

from server.inference.decoding.draft import Draft
from server.inference.decoding.token_rules import Allowed, RowDecoding
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.special_tokens import SpecialTokens


@dataclass(frozen=True, slots=True)
class _Stamp:
    """The likeliest stamp of each row, [rows] each."""

    token: torch.Tensor
    best: torch.Tensor
    """Its logit."""
    together: torch.Tensor
    """The log of the sum over all stamps."""


class TokenChooser:
    """Picks the likeliest token that is allowed, and writes a stamp once stamps together outweigh any other token."""

    def __init__(self, special_tokens: SpecialTokens, device: torch.device) -> None:
        self._vocabulary = special_tokens
        self._never = torch.zeros(special_tokens.size, device=device)
        self._never[list(special_tokens.suppressed)] = -torch.inf
        self._never[special_tokens.end + 1 : special_tokens.first_stamp] = -torch.inf
        self._first = torch.tensor(special_tokens.suppressed_first, dtype=torch.long, device=device)

    def __call__(self, logits: torch.Tensor, allowed: Sequence[Allowed]) -> tuple[list[int], list[float]]:
        """The chosen token of each row and its log probability among those allowed.

        Args:
            logits: [rows, vocabulary]; overwritten.
        """
        text, stamp, total = self._weigh(logits, allowed)
        best_text, best_text_token = text.max(dim=-1)
        stamp_wins = stamp.together > best_text
        tokens = torch.where(stamp_wins, stamp.token, best_text_token)
        best = torch.where(stamp_wins, stamp.best, best_text)
        return tokens.tolist(), (best - total).tolist()

    def several(self, logits: torch.Tensor, allowed: Sequence[Allowed], count: int) -> list[list[tuple[int, float]]]:
        """The likeliest tokens of each row with their log probabilities, best first.

        One stamp stands for all: texts that differ by when they are said do not differ. Where a stamp wins, it is the
        only one.
        """
        text, stamp, total = self._weigh(logits, allowed)
        best, tokens = text.topk(count, dim=-1)
        chances = torch.cat([stamp.together[:, None], best], dim=-1) - total[:, None]
        choices = torch.cat([stamp.token[:, None], tokens], dim=-1)
        chances[:, 1:].masked_fill_((stamp.together > best[:, 0])[:, None], -torch.inf)
        return [
            sorted(
                ((token, chance) for token, chance in zip(row, of_row, strict=True) if chance > -math.inf),
                key=lambda choice: -choice[1],
            )
            for row, of_row in zip(choices.tolist(), chances.tolist(), strict=True)
        ]

    def _weigh(self, logits: torch.Tensor, allowed: Sequence[Allowed]) -> tuple[torch.Tensor, "_Stamp", torch.Tensor]:
        """Of each row the logits of what is no stamp, the best stamp, and the log of the sum over both."""
        special_tokens = self._vocabulary
        logits += self._never
        for row, rules in zip(logits, allowed, strict=True):
            if not rules.text:
                row[: special_tokens.end] = -torch.inf
            elif rules.opens_text:
                row[self._first] = -torch.inf
            if not rules.end:
                row[special_tokens.end] = -torch.inf
            stamps = rules.stamps or range(special_tokens.size, special_tokens.size)
            row[special_tokens.first_stamp : stamps.start] = -torch.inf
            row[stamps.stop :] = -torch.inf
        text, stamps_logits = logits[:, : special_tokens.first_stamp], logits[:, special_tokens.first_stamp :]
        best, token = stamps_logits.max(dim=-1)
        together = stamps_logits.logsumexp(dim=-1)
        total = torch.logaddexp(text.logsumexp(dim=-1), together)
        return text, _Stamp(token + special_tokens.first_stamp, best, together), total


def generate(
    decoder: Decoder,
    state: DecoderState,
    choose: TokenChooser,
    hidden: torch.Tensor,
    rows: Sequence[RowDecoding],
    drafts: Sequence[Sequence[int]],
) -> None:
    """Decodes greedily until every row is done.

    What a draft says comes next is read together with the token before it, and counts as far as the row would have
    written it: speculative decoding (Leviathan, Kalman and Matias, "Fast inference from transformers via speculative
    decoding", ICML 2023) with what the model itself wrote before in the place of a smaller model. For reading many
    tokens takes little longer than one.

    Args:
        hidden: of each row's last prompt token, [rows, 1, width].
        rows: each with nothing written yet; filled in.
        drafts: what each row may come to write, or nothing.
    """
    following = [Draft(draft) for draft in drafts]
    bulk: list[Sequence[int]] = [()] * len(rows)
    while True:
        rules = [_rules(row, tokens) for row, tokens in zip(rows, bulk, strict=True)]
        places = torch.tensor([(row, place) for row, of_row in enumerate(rules) for place in range(len(of_row))])
        logits = decoder.logits(hidden[places[:, 0], places[:, 1]])
        choices = zip(*choose(logits, list(chain.from_iterable(rules))), strict=True)
        right = [
            _accept(row, tokens, list(islice(choices, len(of_row))))
            for row, tokens, of_row in zip(rows, bulk, rules, strict=True)
        ]
        if all(row.ending is not None for row in rows):
            return
        furthest = max(count for row, count in zip(rows, right, strict=True) if row.ending is None)
        # What a row that is done has been through does not matter: it need not be moved.
        kept = [count if row.ending is None else furthest for row, count in zip(rows, right, strict=True)]
        decoder.forget(state, [hidden.shape[1] - 1 - count for count in kept])
        bulk = [() if row.ending else draft.after(row.tokens) for row, draft in zip(rows, following, strict=True)]
        longest = max(map(len, bulk))
        read = [
            [row.tokens[-1], *tokens, *[0] * (longest - len(tokens))] for row, tokens in zip(rows, bulk, strict=True)
        ]
        hidden = decoder.step(state, torch.tensor(read, device=hidden.device))


def capacity(rows: Sequence[RowDecoding], drafts: Sequence[Sequence[int]]) -> int:
    """The most tokens that `generate` has a row read, padding included."""
    return max(row.cap for row in rows) + sum(map(len, drafts))  # a row waits while another goes ahead


def _rules(row: RowDecoding, bulk: Sequence[int]) -> list[Allowed]:
    """What the row may write next, and after each token of those ahead, as long as it writes them."""
    rules = [row.allowed()]
    if bulk:
        row = row.branch()
    for token in bulk:
        row.accept(token, 0.0)
        if row.ending is not None:
            break
        rules.append(row.allowed())
    return rules


def _accept(row: RowDecoding, bulk: Sequence[int], choices: Sequence[tuple[int, float]]) -> int:
    """Writes what was chosen as long as it is what was read ahead, and one more; how much of it was."""
    for count, (token, log_probability) in enumerate(choices):
        if row.ending is None:
            row.accept(token, log_probability)
        if row.ending is not None or count == len(bulk) or token != bulk[count]:
            return count
    return len(choices)
