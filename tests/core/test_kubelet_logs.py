"""The query of /containerLogs, as the kubelet reads it, and what the peer's refusals become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnode.errors import ApiError, NotFound, Rejected, Unauthorized, Unavailable
from vnode.kube.client import error_of
from vnode.kubelet.logs import log_params, refusal
from vnode.kubelet.request import Call, Refused

UNDECODABLE = (400, '{"message": "Unable to decode query."}')
INVALID = (422, '{"message": "Invalid request."}')


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("", {}),
        ("follow=true", {"follow": "true"}),
        ("follow=1&previous=TRUE&timestamps=yes", {"follow": "true", "previous": "true", "timestamps": "true"}),
        ("follow=", {"follow": "true"}),
        ("follow=0&previous=False&timestamps=false", {}),
        ("follow=false&follow=true", {}),
        ("tailLines=0", {"tailLines": "0"}),
        ("tailLines=%2B10", {"tailLines": "10"}),
        ("tail=5&tailLines=7", {"tailLines": "5"}),
        ("tail=all&tailLines=7", {}),
        ("limitBytes=1&sinceSeconds=1", {"limitBytes": "1", "sinceSeconds": "1"}),
        ("sinceTime=2026-01-02T03%3A04%3A05Z", {"sinceTime": "2026-01-02T03:04:05Z"}),
        ("sinceTime=2026-01-02T03:04:05.123456789%2B02:00", {"sinceTime": "2026-01-02T03:04:05.123456789+02:00"}),
        ("sinceTime=", {}),
        ("stream=All", {}),
        ("stream=All&tailLines=1", {"tailLines": "1"}),
        ("stream=Stderr", {"stream": "Stderr"}),
        ("container=other&insecureSkipTLSVerifyBackend=true&limit=1", {}),
    ],
)
def test_a_query_is_translated(query: str, params: dict[str, str]) -> None:
    assert log_params(query, "app") == {"container": "app", **params}


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ("tailLines=x", UNDECODABLE),
        ("tailLines=", UNDECODABLE),
        ("tailLines=1.5", UNDECODABLE),
        ("tailLines=1_0", UNDECODABLE),
        ("tailLines=%20", UNDECODABLE),
        ("tailLines=٣", UNDECODABLE),
        ("limitBytes=9223372036854775808", UNDECODABLE),
        ("limitBytes=" + "9" * 5000, UNDECODABLE),
        ("limitBytes=" + "0" * 5000, INVALID),
        ("sinceTime=yesterday", UNDECODABLE),
        ("sinceTime=2026-13-02T03:04:05Z", UNDECODABLE),
        ("sinceTime=2026-01-02T03:04:05", UNDECODABLE),
        ("tailLines=-1", INVALID),
        ("limitBytes=0", INVALID),
        ("sinceSeconds=0", INVALID),
        ("sinceSeconds=-5", INVALID),
        ("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z", INVALID),
        ("stream=Stdin", INVALID),
        ("stream=Stdout&tailLines=1", INVALID),
    ],
)
def test_a_bad_value_is_refused_in_the_kubelets_words(query: str, refused: tuple[int, str]) -> None:
    with pytest.raises(Refused) as error:
        log_params(query, "app")
    assert (error.value.code, error.value.text) == refused


def outcome(query: str) -> tuple[int, str]:
    try:
        log_params(query, "app")
    except Refused as refused:
        return refused.code, refused.text
    return 200, ""


@given(st.text())
def test_any_query_is_translated_or_refused(query: str) -> None:
    assert outcome(query) in ((200, ""), UNDECODABLE, INVALID)


CALL = Call("containerLogs", "shop", "web-1", "app")
GONE = 'container "app" in pod "web-1" is not available'


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NotFound('pods "web-1" not found', 404), 400, GONE),
        (Rejected('previous terminated container "app" in pod "web-1" not found', 400), 400, None),
        (Rejected('container "app" in pod "web-1" is waiting to start: ContainerCreating', 400), 400, None),
        (Rejected("bad", 422), 400, "bad"),
        (Rejected("container app is not valid for pod web-1", 400), 404, 'container "app" not found in pod "web-1"'),
        (Rejected('pods "web-1" is forbidden', 403), 500, 'peer edge refuses vnode: pods "web-1" is forbidden'),
        (Unauthorized("Unauthorized", 401), 500, "peer edge refuses vnode: Unauthorized"),
        (Unavailable("Get https://10.0.0.1:10250: refused", 500), 500, "Get https://10.0.0.1:10250: refused"),
        (Unavailable("https://peer:6443: cannot connect"), 500, "peer edge does not answer"),
    ],
)
def test_the_peers_refusal_reaches_the_user(error: ApiError, code: int, text: str | None) -> None:
    refused = refusal(error, CALL, "edge")
    assert (refused.code, refused.text) == (code, text if text is not None else error.message)


def test_no_answer_of_a_peer_becomes_one_the_apiserver_drops() -> None:
    for code in range(300, 600):
        assert refusal(error_of(code, b""), CALL, "edge").code in (400, 500)
