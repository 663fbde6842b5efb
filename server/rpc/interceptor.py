"""The base of the server's interceptors: one method for every kind of call."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

Call = Callable[[], Awaitable[Any]]
Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Any]


class CallInterceptor(ABC, grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Runs `around` for every call of this project's services; health and reflection pass unchanged."""

    @abstractmethod
    async def around(self, method: str, call: Call, context: Context) -> Any:
        """Runs `await call()`, and whatever the interceptor does before and after it.

        Args:
            method: the method's short name.
            call: runs the servicer. Its result is the response of a method with one response. It is None for a method
                with a stream of responses, which have been written by then.
        """

    def accept(self, request: Any) -> Any:
        """Returns the request for the servicer. `request` is a DecodeError if it could not be decoded."""
        return request

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/dalston."):
            return handler
        return self._wrap(details.method.rpartition("/")[2], handler)

    def _wrap(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        codecs = handler.request_deserializer, handler.response_serializer
        if not handler.request_streaming:
            # grpc.aio decodes a single request before any interceptor runs, and answers a failure itself.
            codecs = _decoder(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._single(method, handler.unary_unary), *codecs)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._single(method, handler.stream_unary), *codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, handler.unary_stream), *codecs)
        return grpc.stream_stream_rpc_method_handler(self._streaming(method, handler.stream_stream), *codecs)

    def _single(self, method: str, behavior: Behavior) -> Behavior:
        async def wrapped(request: Any, context: Context) -> Any:
            async def call() -> Any:
                return await behavior(self.accept(request), context)

            return await self.around(method, call, context)

        return wrapped

    def _streaming(self, method: str, behavior: Behavior) -> Behavior:
        async def wrapped(request: Any, context: Context) -> None:
            async def call() -> None:
                # A servicer either writes to the context itself or is a generator of responses.
                responses = behavior(self.accept(request), context)
                if not inspect.isasyncgen(responses):
                    await responses
                    return
                try:
                    async for response in responses:
                        await context.write(response)
                finally:
                    await responses.aclose()

            await self.around(method, call, context)

        return wrapped


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Returns `decode` with its error as a result, so that it is raised where errors are answered."""

    def decode_or_error(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError as error:
            return error

    return decode_or_error
