"""`kubectl logs`: the kubelet's `/containerLogs` answered from the peer's `pods/log`, streamed.

The query is read as the kubelet reads it (k8s.io/kubernetes v1.37 pkg/kubelet/server/server.go, getContainerLogs).
Bytes pass with backpressure, the head at once; whichever end closes, the other is closed too, and a stream that breaks
at the peer breaks here: it never looks like a log that came to its end. Called by `server`.
"""

import asyncio
import logging
import re
from datetime import datetime
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from vnode.errors import ApiError, NotFound, Rejected, Unauthorized
from vnode.kube.client import PODS, REQUEST_LIMIT_S
from vnode.kubelet.request import Call, Locate, Located, Refused, find, unanswered

log = logging.getLogger(__name__)

# The kubelet's streamingConnectionIdleTimeout; dead ends are found by TCP keepalive long before.
FOLLOW_IDLE_S: Final = 4 * 3600.0
READ_IDLE_S: Final = 120.0
MAX_MESSAGE: Final = 4096

UNDECODABLE: Final = (400, '{"message": "Unable to decode query."}')
INVALID: Final = (422, '{"message": "Invalid request."}')
_INTEGER: Final = re.compile(r"([+-]?)0*([0-9]{1,19})")  # an int64 has no more digits; int() takes 4300
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.,][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def log_params(query: str, container: str) -> dict[str, str]:
    """The parameters of the peer's `pods/log` for a kubelet's query string. Raises `Refused` (400, 422).

    As the kubelet does: the first of several values counts, unknown names are ignored, `tail` is the old `tailLines`.
    """
    given = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
    tail = given.pop("tail", "")
    if tail == "all":
        given.pop("tailLines", None)
    elif tail:
        given["tailLines"] = tail
    params = {"container": container}
    for name in ("follow", "previous", "timestamps"):
        if given.get(name, "0").lower() not in ("0", "false"):
            params[name] = "true"
    for name, least in (("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)):
        if name in given:
            params[name] = str(_integer(given[name], least))
    since = given.get("sinceTime", "")
    if since not in ("", "null"):
        params["sinceTime"] = _time(since)
    if "sinceSeconds" in params and "sinceTime" in params:
        raise Refused(*INVALID)
    stream = given.get("stream", "All")
    if stream not in ("All", "Stdout", "Stderr") or (stream != "All" and "tailLines" in params):
        raise Refused(*INVALID)
    if stream != "All":  # the default is not sent: only a server that has PodLogsQuerySplitStreams takes the name
        params["stream"] = stream
    return params


async def serve_logs(request: web.BaseRequest, call: Call, locate: Locate) -> web.StreamResponse:
    """Answer with the log until its end. Raises `Refused` when there is none, ConnectionError when an end is lost."""
    params = log_params(request.rel_url.raw_query_string, call.container)
    located = find(locate, call)
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    try:
        try:
            here = await _pass_on(response, request, located, params)
        except Unauthorized:  # nothing was passed on yet, and the client renews its credential
            here = await _pass_on(response, request, located, params)
    except ApiError as error:
        if not response.prepared:
            raise refusal(error, call, located.client.side) from error
        log.info("log stream broke", extra={"namespace": call.namespace, "pod": call.pod, "error": error.message})
        raise ConnectionError("the log broke off at the peer") from error
    if not here:
        raise ConnectionError("the reader is gone")
    await response.write_eof()
    return response


async def _pass_on(
    response: web.StreamResponse, request: web.BaseRequest, located: Located, params: dict[str, str]
) -> bool:
    """Send the peer's log to its end; False when our reader left before it. Raises `ApiError`."""
    follow = "follow" in params
    idle_s = FOLLOW_IDLE_S if follow else READ_IDLE_S
    # A kubelet sends the head of a followed log at once; KWOK, and other kubelets that are none, with the first line.
    head_s = FOLLOW_IDLE_S if follow else REQUEST_LIMIT_S
    async with located.client.stream(
        "log", PODS, PODS.path(located.key, "log"), params, accept="*/*", idle_s=idle_s, head_s=head_s
    ) as content:
        here = await _sent(response, request, b"")
        while here and (chunk := await content.readany()):
            here = await _sent(response, request, chunk)
    return here


async def _sent(response: web.StreamResponse, request: web.BaseRequest, chunk: bytes) -> bool:
    # The stream's block takes every OSError for the peer's; those of our own reader end here.
    try:
        async with asyncio.timeout(FOLLOW_IDLE_S):
            if not response.prepared:
                await response.prepare(request)
            if chunk:
                await response.write(chunk)
    except (ConnectionError, TimeoutError):
        return False
    return True


def refusal(error: ApiError, call: Call, side: str) -> Refused:
    """The kubelet's answer when the peer refuses. The apiserver shows texts of 400 and 500, and drops those of 404."""
    if isinstance(error, NotFound):  # not created yet, or already gone
        return Refused(400, f'container "{call.container}" in pod "{call.pod}" is not available')
    message = error.message[:MAX_MESSAGE]
    if isinstance(error, Unauthorized) or error.code == 403:
        return Refused(500, f"peer {side} refuses vnode: {message}")
    if message == f"container {call.container} is not valid for pod {call.pod}":  # the apiserver's own words
        return Refused(404, f'container "{call.container}" not found in pod "{call.pod}"')
    if isinstance(error, Rejected):
        return Refused(400, message)
    if error.code:
        return Refused(500, message)
    return unanswered(side, error)


def _integer(text: str, least: int) -> int:
    match = _INTEGER.fullmatch(text)
    if match is None or not -(2**63) <= (value := int(match[1] + match[2])) < 2**63:
        raise Refused(*UNDECODABLE)
    if value < least:
        raise Refused(*INVALID)
    return value


def _time(text: str) -> str:
    match = _RFC3339.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        # Python 3.11 reads RFC 3339 but not every length of a fraction; the text itself goes on.
        datetime.fromisoformat(text.replace(match[1] or "", ""))
    except ValueError:
        raise Refused(*UNDECODABLE) from None
    return text
