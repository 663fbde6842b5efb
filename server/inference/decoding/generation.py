"""Greedy decoding: from the encoder's output to one row of tokens per utterance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch

from server.inference.decoding.draft import Draft
from server.inference.decoding.token_rules import Allowed, RowDecoding
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.largest import largest
from server.inference.whisper.special_tokens import SpecialTokens


@dataclass(frozen=True, slots=True)
class _Timestamp:
    """The most probable timestamp of each row, [rows] each."""

    token: torch.Tensor
    best: torch.Tensor
    """Its logit."""
    together: torch.Tensor
    """The log of the sum over all timestamps."""


class TokenChooser:
    """Chooses the most probable allowed token, or a timestamp if timestamps together outweigh any other token."""

    def __init__(self, special_tokens: SpecialTokens, device: torch.device) -> None:
        self._special_tokens = special_tokens
        self._never = torch.zeros(special_tokens.size, device=device)
        self._never[list(special_tokens.suppressed)] = -torch.inf
        self._never[special_tokens.end + 1 : special_tokens.first_timestamp] = -torch.inf
        self._first = torch.tensor(special_tokens.suppressed_first, dtype=torch.long, device=device)

    def __call__(self, logits: torch.Tensor, allowed: Sequence[Allowed]) -> tuple[list[int], list[float]]:
        """The chosen token of each row and its log probability among those allowed.

        Args:
            logits: [rows, vocabulary]; overwritten.
        """
        text, timestamp, total = self._weigh(logits, allowed)
        best_text, best_text_token = text.max(dim=-1)
        timestamp_wins = timestamp.together > best_text
        tokens = torch.where(timestamp_wins, timestamp.token, best_text_token)
        best = torch.where(timestamp_wins, timestamp.best, best_text)
        return tokens.tolist(), (best - total).tolist()

    def several(self, logits: torch.Tensor, allowed: Sequence[Allowed], count: int) -> list[list[tuple[int, float]]]:
        """The most probable tokens of each row with their log probabilities, best first.

        One timestamp represents all of them: beams that differ only in times are the same text. If a timestamp wins, it
        is the only choice.
        """
        text, timestamp, total = self._weigh(logits, allowed)
        tokens = largest(text, count)
        best = text.gather(-1, tokens)
        chances = torch.cat([timestamp.together[:, None], best], dim=-1) - total[:, None]
        choices = torch.cat([timestamp.token[:, None], tokens], dim=-1)
        chances[:, 1:].masked_fill_((timestamp.together > best[:, 0])[:, None], -torch.inf)
        return [
            sorted(
                ((token, chance) for token, chance in zip(row, of_row, strict=True) if chance > -math.inf),
                key=lambda choice: -choice[1],
            )
            for row, of_row in zip(choices.tolist(), chances.tolist(), strict=True)
        ]

    def _weigh(
        self, logits: torch.Tensor, allowed: Sequence[Allowed]
    ) -> tuple[torch.Tensor, "_Timestamp", torch.Tensor]:
        """For each row the logits of the text tokens, the best timestamp, and the log of the sum over both."""
        special_tokens = self._special_tokens
        logits += self._never
        for row, rules in zip(logits, allowed, strict=True):
            if not rules.text:
                row[: special_tokens.end] = -torch.inf
            elif rules.opens_text:
                row[self._first] = -torch.inf
            if not rules.end:
                row[special_tokens.end] = -torch.inf
            timestamps = rules.timestamps or range(special_tokens.size, special_tokens.size)
            row[special_tokens.first_timestamp : timestamps.start] = -torch.inf
            row[timestamps.stop :] = -torch.inf
        text, timestamps_logits = (
            logits[:, : special_tokens.first_timestamp],
            logits[:, special_tokens.first_timestamp :],
        )
        best, token = timestamps_logits.max(dim=-1)
        together = timestamps_logits.logsumexp(dim=-1)
        total = torch.logaddexp(text.logsumexp(dim=-1), together)
        return text, _Timestamp(token + special_tokens.first_timestamp, best, together), total


def generate(
    decoder: Decoder,
    state: DecoderState,
    choose: TokenChooser,
    hidden: torch.Tensor,
    rows: Sequence[RowDecoding],
    drafts: Sequence[Sequence[int]],
) -> None:
    """Decodes greedily until every row is done.

    Drafted tokens are read together with the token before them, and accepted as far as the row would have decoded them:
    speculative decoding (Leviathan, Kalman and Matias, "Fast inference from transformers via speculative decoding",
    ICML 2023), with the model's own earlier output in place of a smaller model. Reading many tokens takes little longer
    than reading one.

    Args:
        hidden: of each row's last prompt token, [rows, 1, width].
        rows: without any tokens yet; filled in.
        drafts: the expected tokens of each row, or none.
    """
    following = [Draft(draft) for draft in drafts]
    drafted: list[Sequence[int]] = [()] * len(rows)
    while True:
        rules = [_rules(row, tokens) for row, tokens in zip(rows, drafted, strict=True)]
        places = torch.tensor([(row, place) for row, of_row in enumerate(rules) for place in range(len(of_row))])
        logits = decoder.logits(hidden[places[:, 0], places[:, 1]])
        choices = zip(*choose(logits, list(chain.from_iterable(rules))), strict=True)
        right = [
            _accept(row, tokens, list(islice(choices, len(of_row))))
            for row, tokens, of_row in zip(rows, drafted, rules, strict=True)
        ]
        if all(row.ending is not None for row in rows):
            return
        furthest = max(count for row, count in zip(rows, right, strict=True) if row.ending is None)
        # The state of a row that is done does not matter: it need not be moved.
        kept = [count if row.ending is None else furthest for row, count in zip(rows, right, strict=True)]
        decoder.forget(state, [hidden.shape[1] - 1 - count for count in kept])
        drafted = [() if row.ending else draft.after(row.tokens) for row, draft in zip(rows, following, strict=True)]
        longest = max(map(len, drafted))
        read = [
            [row.tokens[-1], *tokens, *[0] * (longest - len(tokens))] for row, tokens in zip(rows, drafted, strict=True)
        ]
        hidden = decoder.step(state, torch.tensor(read, device=hidden.device))


def capacity(rows: Sequence[RowDecoding], drafts: Sequence[Sequence[int]]) -> int:
    """The most tokens that `generate` feeds to a row, padding included."""
    return max(row.cap for row in rows) + sum(map(len, drafts))  # a row waits while another advances


def _rules(row: RowDecoding, drafted: Sequence[int]) -> list[Allowed]:
    """The allowed tokens at the next position, and after each drafted token until the row would be done."""
    rules = [row.allowed()]
    if drafted:
        row = row.branch()
    for token in drafted:
        row.accept(token, 0.0)
        if row.ending is not None:
            break
        rules.append(row.allowed())
    return rules


def _accept(row: RowDecoding, drafted: Sequence[int], choices: Sequence[tuple[int, float]]) -> int:
    """Accepts the choices as long as they match the drafted tokens, and one more. Returns how many match."""
    for count, (token, log_probability) in enumerate(choices):
        if row.ending is None:
            row.accept(token, log_probability)
        if row.ending is not None or count == len(drafted) or token != drafted[count]:
            return count
    return len(choices)
