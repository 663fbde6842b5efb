"""The paths of the uploads process in the OpenAPI document. They are not in `proto/`: their shapes are OpenAI's."""

from typing import Any, Final

FILES_TAG: Final = {
    "name": "files",
    "description": "Transcription of files, as clients of OpenAI know it. Fields that are not listed are ignored, and "
    "the response header `dalston-ignored` names them, or refused by name.",
}
_STRING: Final = {"type": "string"}
_STRINGS: Final = {"type": "array", "items": _STRING}
_NUMBER: Final = {"type": "number"}
_SEGMENT: Final = {
    "type": "object",
    "required": ["id", "start", "end", "text"],
    "properties": {
        **{name: {"type": "integer"} for name in ("id", "seek")},
        **dict.fromkeys(("start", "end", "temperature", "avg_logprob", "compression_ratio"), _NUMBER),
        "no_speech_prob": _NUMBER,
        "text": _STRING,
        "tokens": {"type": "array", "items": {"type": "integer"}},
    },
}
FILES_SCHEMAS: Final[dict[str, Any]] = {
    "OpenAIError": {
        "description": "An error as clients of OpenAI read it.",
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _STRING,
                    "type": _STRING,
                    "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "FileTranscription": {
        "description": "The transcript of a file, in the formats `json` and `verbose_json`.",
        "type": "object",
        "required": ["text"],
        "properties": {
            "text": _STRING,
            "language": {**_STRING, "description": "verbose_json: the English name, in lower case."},
            "languages": {"type": "array", "items": {"type": "object", "properties": {"code": _STRING}}},
            "duration": {**_NUMBER, "description": "verbose_json: length of the audio, in seconds."},
            "segments": {"type": "array", "items": _SEGMENT},
            "words": {
                "type": "array",
                "items": {"type": "object", "properties": {"word": _STRING, "start": _NUMBER, "end": _NUMBER}},
            },
            "logprobs": {"type": "array", "items": {"type": "object"}},
            "usage": {"type": "object", "properties": {"type": _STRING, "seconds": _NUMBER}},
        },
    },
    "OpenAIModel": {
        "description": "A model, or an alias of one.",
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {"id": _STRING, "object": _STRING, "created": {"type": "integer"}, "owned_by": _STRING},
    },
}
_FORM: Final = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "flac, mp3, mp4, m4a, ogg, opus, wav or webm."},
        "model": {**_STRING, "description": "A name or an alias of a model. Default `accurate`."},
        "language": {**_STRING, "description": "A code or an English name; detected by default."},
        "languages[]": _STRINGS,
        "prompt": {**_STRING, "description": "Terms that are likely to be spoken, separated by commas."},
        "keywords[]": {**_STRINGS, "description": "The same, one for each item; then `prompt` is not used."},
        "response_format": {
            "type": "string",
            "enum": ["json", "text", "srt", "vtt", "verbose_json"],
            "default": "json",
        },
        "timestamp_granularities[]": {"type": "array", "items": {"type": "string", "enum": ["segment", "word"]}},
        "include[]": {"type": "array", "items": {"type": "string", "enum": ["logprobs"]}},
        "stream": {"type": "boolean", "default": False, "description": "Server-sent events, for `json` and `text`."},
        "async": {"type": "boolean", "default": False, "description": "Answer with the job, and do not wait for it."},
        "store": {"type": "boolean", "default": False, "description": "Whether the session is kept."},
    },
}
_ERRORS: Final = {
    "400": "A field is wrong or not supported, or the file is of no format that is taken; `param` names the field.",
    "401": "No key, or one that is not accepted.",
    "403": "The key lacks the scope.",
    "404": "No model has this name.",
    "408": "The request took too long to arrive.",
    "409": "The job was canceled.",
    "413": "The file is over the limit.",
    "429": "A limit of the tenant; `retry-after` has the seconds to wait.",
    "431": "The headers are too large.",
    "500": "An error of the service.",
    "503": "The service is busy or not available; try again shortly.",
    "504": "The service did not answer in time; a job continues.",
}
_ALWAYS: Final = ("400", "401", "403", "408", "429", "431", "500", "503", "504")


def _ref(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _responses(content: dict[str, Any], *codes: str, **more: Any) -> dict[str, Any]:
    errors = {
        code: {"description": _ERRORS[code], "content": {"application/json": _ref("OpenAIError")}}
        for code in (*_ALWAYS, *codes)
    }
    return dict(sorted({"200": {"description": "It is done.", "content": content}, **more, **errors}.items()))


_TEXTS: Final = ("text/plain", "application/x-subrip", "text/vtt", "text/event-stream")
FILES_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/audio/transcriptions": {
        "post": {
            "operationId": "CreateTranscription",
            "tags": ["files"],
            "summary": "Transcribes a file.",
            "description": "Transcribes a file. The answer comes when its job has ended. The job continues without a "
            "client that disconnects. The same file with the same fields gets the same job until ten minutes after its "
            "end.",
            "parameters": [
                {
                    "name": "prefer",
                    "in": "header",
                    "required": False,
                    "description": "`respond-async`: answer with the job, and do not wait for it.",
                    "schema": _STRING,
                }
            ],
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}},
            "responses": _responses(
                {"application/json": _ref("FileTranscription"), **{each: {"schema": _STRING} for each in _TEXTS}},
                *("404", "409", "413"),
                **{
                    "202": {
                        "description": "The job exists; `location` has its address.",
                        "content": {"application/json": _ref("Job")},
                    }
                },
            ),
        }
    },
    "/v1/models": {
        "get": {
            "operationId": "ListOpenAIModels",
            "tags": ["files"],
            "summary": "Lists the models, and their aliases after them.",
            "description": "Lists the models, and their aliases after them.",
            "parameters": [],
            "responses": _responses(
                {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["object", "data"],
                            "properties": {
                                "object": _STRING,
                                "data": {"type": "array", "items": {"$ref": "#/components/schemas/OpenAIModel"}},
                            },
                        }
                    }
                }
            ),
        }
    },
    "/v1/models/{model}": {
        "get": {
            "operationId": "GetOpenAIModel",
            "tags": ["files"],
            "summary": "Reads one model.",
            "description": "Reads one model. Its name may be an alias.",
            "parameters": [
                {
                    "name": "model",
                    "in": "path",
                    "required": True,
                    "description": "A name or an alias.",
                    "schema": _STRING,
                }
            ],
            "responses": _responses({"application/json": _ref("OpenAIModel")}, "404"),
        }
    },
}
