"""kube.token: whose a token is, when to renew it, and where it stands in a kubeconfig."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from vnode.kube.token import AccountToken, read, with_token

ISSUED, ENDS = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 31, tzinfo=UTC)


def bearer(**claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"Bearer head.{body}.signature"


def ours(**changed: Any) -> dict[str, Any]:
    stamps = {"iat": int(ISSUED.timestamp()), "exp": int(ENDS.timestamp())}
    return {"sub": "system:serviceaccount:vnode-system:vnode", **stamps, **changed}


def test_an_accounts_token_says_whose_it_is_and_is_renewed_half_way() -> None:
    found = read(bearer(**ours()))
    assert found == AccountToken("vnode-system", "vnode", ISSUED, ENDS)
    assert found.half_way == datetime(2026, 5, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer opaque",
        "Basic dXNlcjpwYXNz",
        "Bearer a.%%%.c",
        "Bearer a.bm8ganNvbg.c",
        bearer(sub="jane", iat=1, exp=2),
        bearer(**ours(sub="system:node:edge:x")),
        bearer(sub=ours()["sub"], iat=1),
        bearer(**ours(exp=10**18)),
        bearer(**ours(exp="soon")),
    ],
)
def test_what_is_no_accounts_token_with_an_end_is_none_of_our_business(header: str) -> None:
    assert read(header) is None


CONFIG: dict[str, Any] = {
    "contexts": [
        {"name": "edge", "context": {"cluster": "edge", "user": "vnode"}},
        {"name": "other", "context": {"cluster": "edge", "user": "cert"}},
    ],
    "users": [{"name": "vnode", "user": {"token": "old"}}, {"name": "cert", "user": {"client-key-data": "k"}}],
    "current-context": "edge",
    "extensions": [{"name": "kept"}],
}


@pytest.mark.parametrize("context", ["", "edge"])
def test_a_token_takes_the_place_of_the_old_one_and_nothing_else_changes(context: str) -> None:
    text = with_token(yaml.safe_dump(CONFIG), context, "new")
    assert text is not None
    after = yaml.safe_load(text)
    assert after["users"][0] == {"name": "vnode", "user": {"token": "new"}}
    after["users"][0]["user"]["token"] = "old"
    assert after == CONFIG


@pytest.mark.parametrize(
    ("text", "context"), [(yaml.safe_dump(CONFIG), "other"), (yaml.safe_dump(CONFIG), "absent"), ("[]", ""), ("", "x")]
)
def test_where_there_is_no_token_none_is_put(text: str, context: str) -> None:
    assert with_token(text, context, "new") is None
