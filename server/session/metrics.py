"""What sessions report about themselves."""

from prometheus_client import Counter

PARTIALS = Counter(
    "dalston_partials_total",
    "Tries of utterances that go on, by what came of them: told, nothing new, given up for want of time, or not told"
    " because the client does not read.",
    ["outcome"],
)
