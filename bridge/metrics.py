"""The metrics of the bridge."""

from prometheus_client import Counter, Gauge, Histogram

OPEN_CONNECTIONS = Gauge("dalston_bridge_open_connections", "Open WebSockets.")
CLOSED = Counter(
    "dalston_bridge_closed_total",
    "WebSockets closed, by close code; 1006 means that the client disconnected.",
    ["code"],
)
BEGIN_SECONDS = Histogram("dalston_bridge_begin_seconds", "Seconds from the start of the gRPC call to session.begin.")
AUDIO_BYTES = Counter("dalston_bridge_audio_bytes_total", "Audio relayed to the server.")
MESSAGES_SENT = Counter("dalston_bridge_messages_sent_total", "Messages relayed to clients.")
