"""The REST API as an OpenAPI 3.1 document, made from the descriptors of `proto/` and their comments.

generate.py runs it. A comment such as `1 to 100. Default 50.` becomes the bounds and the default of a number.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from openapi_files import FILES_PATHS, FILES_SCHEMAS, FILES_TAG

PACKAGE: Final = ".dalston.v1."
_VERBS: Final = ("get", "post", "put", "patch", "delete")
_NUMBER: Final = r"-?\d+(?:\.\d+)?"
_RANGE: Final = re.compile(rf"\b({_NUMBER}) to ({_NUMBER})\b")
_DEFAULT: Final = re.compile(rf"Default:? (true|false|{_NUMBER})\.(?:\s|$)")
_SCALARS: Final[dict[int, dict[str, Any]]] = {
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
}
# No descriptor has the content of an HttpBody.
_BODIES: Final = {
    "GetAudio": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}},
    "GetWaveform": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    "GetTranscript": {"application/json": {"schema": {"$ref": "#/components/schemas/Transcript"}}},
    "ExportTranscript": {
        "text/plain": {"schema": {"type": "string"}},
        "application/x-subrip": {"schema": {"type": "string"}},
        "text/vtt": {"schema": {"type": "string"}},
        "application/json": {"schema": {"$ref": "#/components/schemas/Transcript"}},
    },
}
_TRANSCRIPT: Final = {
    "description": "A stored transcript.",
    "type": "object",
    "required": ["session_id", "language", "duration", "text", "utterances"],
    "properties": {
        "session_id": {"type": "string"},
        "language": {"type": "string"},
        "duration": {"type": "number", "description": "Length of the audio, in seconds."},
        "version": {"type": "integer", "description": "Only of a transcript that a batch job made."},
        "model": {"type": "string", "description": "The model that made it; only with `version`."},
        "kind": {"type": "string", "description": "`enhanced` or `upload`; only with `version`."},
        "text": {"type": "string", "description": "All utterances, joined by spaces."},
        "utterances": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["start", "end", "text", "confidence"],
                "properties": {
                    "start": {"type": "number"},
                    "end": {"type": "number"},
                    "text": {"type": "string"},
                    "confidence": {"type": "number"},
                    "language": {"type": "string", "description": "ISO 639-1. Older documents do not have it."},
                    "language_probability": {
                        "type": ["number", "null"],
                        "description": "Null where the client requested the language, and where it was not stored.",
                    },
                    "words": {"type": "array", "items": {"$ref": "#/components/schemas/Word"}},
                },
            },
        },
    },
}
_STATUS: Final = {
    "description": "google.rpc.Status: what went wrong.",
    "type": "object",
    "required": ["code", "message", "details"],
    "properties": {
        "code": {"type": "integer", "description": "The gRPC status code."},
        "message": {"type": "string", "description": "For a person."},
        "details": {
            "type": "array",
            "description": "google.rpc.ErrorInfo with a `reason` of error_reason.proto, and more.",
            "items": {
                "type": "object",
                "required": ["@type"],
                "properties": {
                    "@type": {"type": "string"},
                    "reason": {"type": "string"},
                    "domain": {"type": "string"},
                    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
        },
    },
}
_ERRORS: Final = {
    "400": "The request is invalid; the message names the mistake.",
    "401": "No key, or one that is not accepted.",
    "403": "The key lacks the scope, or a web page of another origin sent the request.",
    "404": "No object has this id.",
    "409": "The session is in a state that does not allow it.",
    "413": "The body is larger than 16 KiB.",
    "416": "No byte of the file is in the range.",
    "429": "Too many requests or sessions; `retry-after` has the seconds to wait.",
    "431": "Headers and query are larger than 64 KiB.",
    "500": "An error of the service. The message has the number of its log line.",
    "503": "A dependency of the request is unavailable; try again shortly.",
    "504": "The service did not answer in time.",
}
_EXAMPLES: Final = {
    "400": (3, "limit must be 1 to 100", "INVALID_PARAMETERS", {"parameter": "limit"}),
    "401": (16, "the key was not accepted", "UNAUTHENTICATED", {}),
    "403": (7, "the key lacks the scope sessions:write", "PERMISSION_DENIED", {}),
    "404": (5, "session sess_01990000000070008000000000000001 was not found", "SESSION_NOT_FOUND", {}),
    "409": (10, "session sess_01990000000070008000000000000001 is active", "SESSION_ACTIVE", {}),
    "416": (11, "no byte of the range is in the file, which has 384044 bytes", "INVALID_RANGE", {}),
    "429": (8, "8 downloads are in progress, which is the limit", "RATE_LIMITED", {}),
    "500": (13, "internal error 4f1c2d3e5a6b", "INTERNAL", {}),
    "503": (14, "the database does not answer: try again shortly", "UNAVAILABLE", {}),
}
"""Code, message, reason and metadata of an error of each status that the server itself answers with."""
_TAGS: Final = {
    "SessionService": "sessions",
    "JobService": "jobs",
    "KeyService": "keys",
    "TranscriptionService": "models",
    "StatusService": "status",
}
_IDS: Final = {
    "session_id": "The session's id: `sess_` and 32 hexadecimal digits.",
    "job_id": "The job's id: `job_` and 32 hexadecimal digits.",
    "version": "The version of the transcript.",
    "key_id": "The key's id: `key_` and 32 hexadecimal digits.",
    "login_id": "The login's id: `login_` and 32 hexadecimal digits.",
}
"""Fields that have no comment of their own in the contract, by their name."""
_DOWNLOADS: Final = tuple(_BODIES)
_WITHOUT_VERSION: Final = ("GetAudio", "GetWaveform")
"""Downloads of the audio, which has no versions."""
_HEADERS: Final = {
    "range": ("The part of the file that is wanted, one range of bytes.", "bytes=0-1023"),
    "if-range": ("The `etag` that the range is of; the whole file is sent where it has another.", '"0123456789abcdef"'),
    "if-none-match": ("The `etag` of the file that the client has already.", '"0123456789abcdef"'),
}
"""Request headers of a download: description and example."""
_ALWAYS: Final = ("400", "401", "403", "429", "431", "500", "503", "504")


def openapi(descriptors: FileDescriptorSet, version: str) -> str:
    """The document, as JSON.

    Args:
        descriptors: of `proto/`, with source info.
    """
    files = [file for file in descriptors.file if file.package == PACKAGE.strip(".")]
    messages = {name: message for file in files for name, message in _messages(file)}
    comments = {path: text for file in files for path, text in _comments(file)}
    texts = {path: text for file in files for path, text in _comments(file, whole=True)}
    writer = _Writer(messages, comments, texts)
    paths: dict[str, dict[str, Any]] = {}
    for file in files:
        for service in file.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    path, verb, operation = writer.operation(service.name, method)
                    paths.setdefault(path, {})[verb] = operation
    for path, verbs in FILES_PATHS.items():
        paths.setdefault(path, {}).update(verbs)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Dalston",
            "version": version,
            "description": "Sessions of live transcription: the record of them, their audio and transcripts. Live "
            "streams go over WebSocket (`/v1/audio/transcriptions/stream`) or gRPC.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [
            {"name": _TAGS[service.name], "description": texts.get(PACKAGE + service.name, "")}
            for file in files
            for service in file.service
            if service.name in _TAGS
        ]
        + [FILES_TAG],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
            "schemas": {"Status": _STATUS, "Transcript": _TRANSCRIPT, **FILES_SCHEMAS, **writer.schemas()},
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _messages(file: FileDescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    for message in file.message_type:
        yield PACKAGE + message.name, message
        for nested in message.nested_type:
            yield f"{PACKAGE}{message.name}.{nested.name}", nested


def _comments(file: FileDescriptorProto, *, whole: bool = False) -> Iterator[tuple[str, str]]:
    """Full name of a message, field, service or method, and its comment: the first paragraph, or all."""
    for location in file.source_code_info.location:
        name = _name_at(file, list(location.path))
        paragraphs = [
            " ".join(line.strip() for line in paragraph.splitlines()).strip()
            for paragraph in location.leading_comments.split("\n\n")
        ]
        if name and paragraphs[0]:
            yield name, "\n\n".join(paragraphs if whole else paragraphs[:1])


def _name_at(file: FileDescriptorProto, path: list[int]) -> str | None:
    """The full name at a path of field numbers and indexes of descriptor.proto."""
    node: Any = file
    names: list[str] = []
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = node.DESCRIPTOR.fields_by_number.get(number)
        if field is None or not field.is_repeated or field.message_type is None:
            return None
        node = getattr(node, field.name)[index]
        if not hasattr(node, "name"):
            return None
        names.append(node.name)
    return PACKAGE + ".".join(names) if names and len(path) % 2 == 0 else None


class _Writer:
    """Turns methods into operations and collects the messages that they need."""

    def __init__(self, messages: dict[str, DescriptorProto], comments: dict[str, str], texts: dict[str, str]) -> None:
        """`comments` has the first paragraph of the comment of each name, `texts` all paragraphs."""
        self._messages = messages
        self._comments = comments
        self._texts = texts
        self._wanted: dict[str, None] = {}

    def operation(self, service: str, method: MethodDescriptorProto) -> tuple[str, str, dict[str, Any]]:
        """Path, verb and operation object of a method."""
        rule = method.options.Extensions[annotations_pb2.http]
        verb = next(verb for verb in _VERBS if getattr(rule, verb))
        path: str = getattr(rule, verb)
        request = self._messages[method.input_type]
        in_path = re.findall(r"{(\w+)}", path)
        others = [field for field in request.field if field.name not in in_path]
        text = self._texts.get(f"{PACKAGE}{service}.{method.name}", "")
        operation: dict[str, Any] = {
            "operationId": method.name,
            "tags": [_TAGS[service]],
            "summary": _first_sentence(text),
            "description": text,
            "parameters": [
                self._parameter(method.input_type, field, "path" if field.name in in_path else "query")
                for field in request.field
                if field.name in in_path or not rule.body
            ],
            "responses": self._responses(method, has_id=bool(in_path), has_body=bool(rule.body)),
        }
        if rule.body:
            body = self._object(method.input_type, others, is_request=True)
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        if method.name in _DOWNLOADS:
            names = _HEADERS if method.name == "GetAudio" else ("if-none-match",)
            operation["parameters"] += [_header(name) for name in names]
        return path, verb, operation

    def schemas(self) -> dict[str, Any]:
        """All messages that the operations so far refer to, directly or indirectly."""
        written: dict[str, Any] = {}
        while missing := [name for name in self._wanted if _short(name) not in written]:
            for name in missing:
                schema = self._object(name, list(self._messages[name].field), is_request=False)
                written[_short(name)] = {"description": self._comments.get(name, ""), **schema}
        return dict(sorted(written.items()))

    def _responses(self, method: MethodDescriptorProto, *, has_id: bool, has_body: bool) -> dict[str, Any]:
        if method.name in _BODIES:
            content: dict[str, Any] = _BODIES[method.name]
        elif method.server_streaming:
            # The first is the default without an Accept header: one object per line, which is no JSON document.
            message = self._ref(method.output_type)
            content = {"application/x-ndjson": {"schema": message}, "text/event-stream": {"schema": {"type": "string"}}}
        else:
            content = {"application/json": {"schema": self._ref(method.output_type)}}
        responses: dict[str, Any] = {"200": {"description": "It is done.", "content": content}}
        if method.name in _DOWNLOADS:
            headers = {"etag": _ETAG}
            if method.name not in _WITHOUT_VERSION:
                headers["x-transcript-version"] = _VERSION
            responses["200"]["headers"] = headers
            responses["304"] = {"description": "The client has the file already.", "headers": headers}
        codes = {*_ALWAYS}
        if has_id:
            codes |= {"404", "409"}
        if has_body:
            codes.add("413")
        if method.name == "GetAudio":
            codes.add("416")
            responses["206"] = {"description": "The part asked for.", "content": content, "headers": {"etag": _ETAG}}
        responses |= {code: {"description": _ERRORS[code], "content": _error(code)} for code in codes}
        return dict(sorted(responses.items()))

    def _parameter(self, message: str, field: FieldDescriptorProto, place: str) -> dict[str, Any]:
        return {
            "name": field.name,
            "in": place,
            "required": place == "path",
            "description": self._comments.get(f"{message}.{field.name}") or _IDS.get(field.name, ""),
            "schema": self._bounded(message, field),
        }

    def _object(self, message: str, fields: list[FieldDescriptorProto], *, is_request: bool) -> dict[str, Any]:
        properties = {field.name: self._property(message, field) for field in fields}
        # Envoy prints every field that is not optional, except messages that are not set.
        always = [field.name for field in fields if not (field.proto3_optional or _is_single_message(field))]
        schema = {"type": "object", "properties": properties}
        return schema if is_request or not always else {**schema, "required": always}

    def _property(self, message: str, field: FieldDescriptorProto) -> dict[str, Any]:
        schema = self._bounded(message, field)
        text = self._comments.get(f"{message}.{field.name}")
        return {**schema, "description": text} if text else schema

    def _bounded(self, message: str, field: FieldDescriptorProto) -> dict[str, Any]:
        schema = self._type(field)
        text = self._comments.get(f"{message}.{field.name}", "")
        if schema.get("type") in ("integer", "number") and (bounds := _RANGE.search(text)):
            schema = {**schema, "minimum": json.loads(bounds[1]), "maximum": json.loads(bounds[2])}
        if default := _DEFAULT.search(text):
            schema = {**schema, "default": json.loads(default[1])}
        return schema

    def _type(self, field: FieldDescriptorProto) -> dict[str, Any]:
        schema = dict(_SCALARS[field.type]) if field.type in _SCALARS else self._ref(field.type_name)
        if field.label != FieldDescriptorProto.LABEL_REPEATED:
            return schema
        return {"type": "array", "items": schema}

    def _ref(self, name: str) -> dict[str, Any]:
        if name == ".google.protobuf.Timestamp":
            return {"type": "string", "format": "date-time"}
        self._wanted[name] = None
        return {"$ref": f"#/components/schemas/{_short(name)}"}


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\w)[.:](?:\s|$)", text, maxsplit=1)[0]


_ETAG: Final = {"description": "The file's strong entity tag.", "schema": {"type": "string"}}
_VERSION: Final = {
    "description": "The version of the transcript. A join of several versions does not have it.",
    "schema": {"type": "integer"},
}


def _header(name: str) -> dict[str, Any]:
    description, example = _HEADERS[name]
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


def _error(code: str) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/Status"}}
    if code in _EXAMPLES:
        number, message, reason, metadata = _EXAMPLES[code]
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "dalston.v1",
            "metadata": metadata,
        }
        media["example"] = {"code": number, "message": message, "details": [info]}
    return {"application/json": media}


def _short(name: str) -> str:
    return name.removeprefix(PACKAGE)


def _is_single_message(field: FieldDescriptorProto) -> bool:
    return field.type == FieldDescriptorProto.TYPE_MESSAGE and field.label != FieldDescriptorProto.LABEL_REPEATED
