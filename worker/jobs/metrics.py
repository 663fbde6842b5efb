"""The metrics of batch jobs."""

from prometheus_client import Counter, Gauge, Histogram

_HOUR = 3600.0

jobs = Gauge(
    "dalston_jobs", "Batch jobs of all tenants that have not ended; all workers report the same", ["status", "kind"]
)
wait_seconds = Histogram(
    "dalston_job_wait_seconds",
    "Time from when a batch job was due to its claim",
    buckets=(0.5, 1, 5, 15, 60, 300, 900, _HOUR, 4 * _HOUR, 24 * _HOUR),
)
rate = Histogram(
    "dalston_job_rate",
    "Audio seconds that a completed batch job transcribed per second, waits for live sessions not counted",
    buckets=(0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256),
)
ended = Counter("dalston_jobs_ended_total", "Batch jobs that this worker has ended", ["status", "code"])
verdicts = Counter(
    "dalston_job_verdicts_total",
    "New transcripts, by the rule that made them doubtful or empty; `accepted` for the others",
    ["reason"],
)
attempts_failed = Counter("dalston_job_attempts_failed_total", "Attempts at batch jobs that ended with an error")
capacity_wait_seconds = Counter(
    "dalston_job_capacity_wait_seconds_total",
    "Time that batch jobs have waited because a server on the machine is behind",
)
