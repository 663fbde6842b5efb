"""The metrics of the uploads process."""

from prometheus_client import Counter, Gauge, Histogram

OPEN_REQUESTS = Gauge("dalston_uploads_open_requests", "Requests with a file that are received or wait for their job.")
RESPONSES = Counter("dalston_uploads_responses_total", "Responses, by HTTP status.", ["status"])
LEFT = Counter("dalston_uploads_left_total", "Clients that disconnected before their response.")
FILE_BYTES = Counter("dalston_uploads_file_bytes_total", "Bytes of files relayed to the server.")
JOB_SECONDS = Histogram(
    "dalston_uploads_job_seconds",
    "Seconds from the last byte of a file to the end of its job, for clients that waited.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
