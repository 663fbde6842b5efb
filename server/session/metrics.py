"""What sessions report about themselves."""

from prometheus_client import Counter

PARTIALS = Counter(
    "dalston_partials_total",
    "Tries of utterances that go on, by what came of them: told, nothing new, given up for want of time, or not told"
    " because the client does not read.",
    ["outcome"],
)
SUPPRESSED = Counter(
    "dalston_speech_suppressed_total",
    "Utterances that were detected and have no final, by reason; their clients were warned of each.",
    ["reason"],
)
ENDED_WITHOUT_AUDIO = Counter(
    "dalston_speech_ended_without_audio_total", "Utterances ended by wall time because their client sent no more audio."
)
CONTAINERS = Counter(
    "dalston_container_audio_total", "Sessions whose audio is a file instead of raw samples, by format.", ["format"]
)
