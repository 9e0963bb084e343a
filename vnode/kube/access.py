"""What we ourselves may do at an apiserver, by its own word (SelfSubjectAccessReview, which everybody may ask for).

Asked so that nothing need be tried out: a refused request is noise in an audit log. Called by `app` and `check`.
"""

import msgspec

from vnode.kube.client import SELF_ACCESS_REVIEWS, Client


class _Status(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


async def allowed(client: Client, verb: str, resource: str, namespace: str = "") -> bool:
    """Whether we may `verb` on `resource`, written RESOURCE[/SUBRESOURCE][.GROUP]; no namespace: in all of them.

    Raises `ApiError`.
    """
    path, _, group = resource.partition(".")
    plural, _, subresource = path.partition("/")
    attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {**attributes, "namespace": namespace}},
    }
    return msgspec.json.decode(await client.create(SELF_ACCESS_REVIEWS, "", review), type=_Review).status.allowed
