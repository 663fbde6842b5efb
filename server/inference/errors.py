"""The errors of the engine.

InferenceError
├── EngineStopped        the engine is stopping or has stopped
├── QueueFull            too many utterances are waiting already
├── PartialDropped       newer audio or finals take precedence: there is no partial this time
├── RecognitionFailed    the model failed on this batch; the next one may succeed
└── WeightsError         a configured model cannot be loaded; the message is one sentence for the operator
"""


class InferenceError(Exception):
    """The base class of the errors that `server.inference` raises on purpose."""


class EngineStopped(InferenceError):
    """The engine is stopping or has stopped, and the utterance was not transcribed."""


class QueueFull(InferenceError):
    """The queue is full."""


class PartialDropped(InferenceError):
    """The partial was dropped before its turn: newer audio of its session arrived, or finals need the model."""


class RecognitionFailed(InferenceError):
    """The model failed on the batch that held this utterance."""


class WeightsError(InferenceError):
    """A configured model cannot be loaded. The message is one sentence that names the model or file and the cause."""
