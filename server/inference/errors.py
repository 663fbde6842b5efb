"""What the engine can refuse or fail at.

InferenceError
├── EngineStopped        the engine is stopping or has stopped
├── QueueFull            too many utterances wait already
├── PartialDropped       newer audio, or finals, came first: there is no partial this time
├── RecognitionFailed    the model failed on this batch; the next one may well succeed
└── WeightsError         a configured model cannot be had; the message is one sentence for a person
"""


class InferenceError(Exception):
    """The root of everything raised on purpose by `server.inference`."""


class EngineStopped(InferenceError):
    """The engine is stopping or has stopped, and the utterance was not transcribed."""


class QueueFull(InferenceError):
    """As many utterances as the queue holds are waiting already."""


class PartialDropped(InferenceError):
    """The partial was given up before the model saw it: newer audio of its session came, or finals need the model."""


class RecognitionFailed(InferenceError):
    """The model failed on the batch that held this utterance."""


class WeightsError(InferenceError):
    """A configured model cannot be loaded. The message is one sentence that names the model or file and the cause."""
