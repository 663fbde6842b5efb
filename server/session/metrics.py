"""Metrics of sessions."""

from prometheus_client import Counter

PARTIALS = Counter(
    "dalston_partials_total",
    "Passes over utterances in progress, by outcome: sent, unchanged (nothing new), given up (the model had no time),"
    " unread (the client does not read).",
    ["outcome"],
)
SUPPRESSED = Counter(
    "dalston_speech_suppressed_total",
    "Utterances that were detected and have no final, by reason. Clients receive a warning for each.",
    ["reason"],
)
ENDED_WITHOUT_AUDIO = Counter(
    "dalston_speech_ended_without_audio_total", "Utterances ended by wall time because their client sent no more audio."
)
CONTAINERS = Counter(
    "dalston_container_audio_total", "Sessions whose audio is a file instead of raw samples, by format.", ["format"]
)
