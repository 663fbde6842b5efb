"""Recording of running sessions.

`interceptor` wraps every Transcribe call in a `call`, which consists of a `request_reader`, a `response_writer` and a
`call_end`. They record through the `pipeline`; a `session_recorder` keeps the state of one session.
"""
