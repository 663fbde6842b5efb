"""The HTTP interface of file transcription as clients of OpenAI know it, translated to gRPC. It holds no file."""
