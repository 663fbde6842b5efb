"""Wrapping of gRPC handlers, so that an interceptor is written once for all kinds of methods."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Behavior = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Any]
Around = Callable[[Callable[[], Awaitable[Any]], grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


def wrap_behaviors(
    handler: grpc.RpcMethodHandler[Any, Any] | None, around: Around
) -> grpc.RpcMethodHandler[Any, Any] | None:
    """The same handler with `around(call, context)` about every call of it.

    `call()` runs the servicer: its result is the response of a method with one response, and None for a method with
    a stream of them, which has written them by then. None (no such method) stays None.
    """
    if handler is None:
        return None
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(
            _unary(handler.unary_unary, around), handler.request_deserializer, handler.response_serializer
        )
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(
            _streaming(handler.unary_stream, around), handler.request_deserializer, handler.response_serializer
        )
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(
            _unary(handler.stream_unary, around), handler.request_deserializer, handler.response_serializer
        )
    return grpc.stream_stream_rpc_method_handler(
        _streaming(handler.stream_stream, around), handler.request_deserializer, handler.response_serializer
    )


def _unary(behavior: Behavior, around: Around) -> Behavior:
    async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        async def call() -> Any:
            return await behavior(request, context)

        return await around(call, context)

    return wrapped


def _streaming(behavior: Behavior, around: Around) -> Behavior:
    async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async def call() -> None:
            # A servicer either writes to the context itself or is a generator of responses.
            responses = behavior(request, context)
            if not inspect.isasyncgen(responses):
                await responses
                return
            try:
                async for response in responses:
                    await context.write(response)
            finally:
                await responses.aclose()

        await around(call, context)

    return wrapped
