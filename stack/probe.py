"""Whether a part answers over HTTP."""

import http.client
from contextlib import closing


def answers(port: int, path: str, timeout: float = 5.0) -> bool:
    """Whether what listens on `port` of 127.0.0.1 says 200 to a GET of `path`.

    It is asked many times a second: httpx would read the machine's certificates each time, and ask its proxy.
    """
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
