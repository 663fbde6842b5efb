"""What the bridge counts."""

from prometheus_client import Counter, Gauge, Histogram

OPEN_CONNECTIONS = Gauge("dalston_bridge_open_connections", "WebSockets open now.")
CLOSED = Counter(
    "dalston_bridge_closed_total", "WebSockets closed, by close code; 1006 means the client was gone.", ["code"]
)
BEGIN_SECONDS = Histogram("dalston_bridge_begin_seconds", "From the handshake to session.begin.")
AUDIO_BYTES = Counter("dalston_bridge_audio_bytes_total", "Audio relayed to the server.")
MESSAGES_SENT = Counter("dalston_bridge_messages_sent_total", "Messages relayed to clients.")
