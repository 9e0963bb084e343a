"""One cluster's API as its administrator, for tests: cheap, synchronous, and nothing of vnode's own client in it."""

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from vnode.devcluster.controlplane import ControlPlane

Json = dict[str, Any]

_GROUPS = {
    "Pod": ("/api/v1", "pods"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Secret": ("/api/v1", "secrets"),
    "Event": ("/api/v1", "events"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Namespace": ("/api/v1", "namespaces"),
    "Node": ("/api/v1", "nodes"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "DaemonSet": ("/apis/apps/v1", "daemonsets"),
    "Job": ("/apis/batch/v1", "jobs"),
    "CronJob": ("/apis/batch/v1", "cronjobs"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Peer": ("/apis/vnode.dev/v1alpha1", "peers"),
}
_CLUSTER_WIDE = {"Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "Peer"}
_MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class Refusal(Exception):
    """The apiserver's answer was an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Api:
    """Reads and writes objects of `plane` by kind, namespace ("" for cluster-wide ones) and name."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self._trust = ssl.create_default_context(cafile=str(plane.ca))
        self._trust.load_cert_chain(plane.directory / "admin.crt", plane.directory / "admin.key")

    def get(self, kind: str, namespace: str, name: str) -> Json:
        """The object. Raises Refusal (404 when it is absent)."""
        return self._call("GET", _path(kind, namespace, name))

    def find(self, kind: str, namespace: str, name: str) -> Json | None:
        """The object, or None when it is absent."""
        try:
            return self.get(kind, namespace, name)
        except Refusal as refusal:
            if refusal.code == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", labels: str = "", fields: str = "") -> list[Json]:
        """The objects that match both selectors; of all namespaces when none is given."""
        return self.page(kind, namespace, labels, fields)["items"]  # type: ignore[no-any-return]

    def page(self, kind: str, namespace: str = "", labels: str = "", fields: str = "") -> Json:
        """As `list`, with the list's own metadata."""
        query = {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        return self._call("GET", f"{_path(kind, namespace)}?{urlencode(query)}")

    def create(self, item: Json, namespace: str = "") -> Json:
        """The created object."""
        place = item["metadata"].get("namespace", namespace)
        return self._call("POST", _path(item["kind"], place), item)

    def patch(self, kind: str, namespace: str, name: str, body: Json, subresource: str = "", how: str = _MERGE) -> Json:
        """The object after a patch; `how` is the patch's media type."""
        return self._call("PATCH", _path(kind, namespace, name, subresource), body, how)

    def patch_status(self, kind: str, namespace: str, name: str, status: Json) -> Json:
        """The object after a strategic merge patch of its status."""
        return self.patch(kind, namespace, name, {"status": status}, "status", STRATEGIC)

    def delete(self, kind: str, namespace: str, name: str, grace_s: int | None = None) -> None:
        """Ask for deletion; what is gone already is fine."""
        options = {} if grace_s is None else {"gracePeriodSeconds": grace_s}
        try:
            self._call("DELETE", _path(kind, namespace, name), options)
        except Refusal as refusal:
            if refusal.code != 404:
                raise

    def evict(self, namespace: str, pod: str) -> None:
        """Evict through the Eviction API. Raises Refusal (429 while a budget forbids it)."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": pod}}
        self._call("POST", _path("Pod", namespace, pod, "eviction"), body)

    def watch(self, kind: str, version: str, namespace: str = "", labels: str = "", limit_s: int = 1) -> Iterator[Json]:
        """Watch events from `version` on, for `limit_s` seconds or until the apiserver ends the stream."""
        query = {"watch": "1", "resourceVersion": version, "labelSelector": labels, "timeoutSeconds": str(limit_s)}
        connection = self._connect()
        try:
            connection.request("GET", f"{_path(kind, namespace)}?{urlencode(query)}")
            answer = connection.getresponse()
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        place = urlsplit(self.plane.url)
        return http.client.HTTPSConnection(place.hostname or "", place.port, timeout=20, context=self._trust)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, how: str = "application/json"
    ) -> Json:
        connection = self._connect()
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": how})
            answer = connection.getresponse()
            content: Json = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refusal(answer.status, str(content.get("message")))
        return content


class Recorder:
    """Everything that happens to the objects that a selector names, in order, until `stop`.

    `keep` says what of each object is kept: a long churn is too much to hold as a whole.
    """

    def __init__(
        self, api: Api, kind: str, namespace: str = "", labels: str = "", keep: Callable[[Json], Json] = dict
    ) -> None:
        self._api, self._kind, self._namespace, self._labels = api, kind, namespace, labels
        self._keep = keep
        self._version: str = api.page(kind, namespace, labels)["metadata"]["resourceVersion"]
        self._events: list[tuple[str, Json]] = []
        self._problem: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"recorder of {kind}", daemon=True)
        self._thread.start()

    def stop(self) -> list[tuple[str, Json]]:
        """The events, as (type, object), of all that happened before this call."""
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._problem:
            raise self._problem
        return self._events

    def _run(self) -> None:
        try:
            last = False
            while not last:
                last = self._stopping.is_set()  # a watch that begins after the end of things has them all
                for event in self._api.watch(self._kind, self._version, self._namespace, self._labels):
                    assert event["type"] != "ERROR", f"the watch was lost: {event['object']}"
                    self._version = event["object"]["metadata"]["resourceVersion"]
                    self._events.append((event["type"], self._keep(event["object"])))
        except (OSError, http.client.HTTPException, LookupError, ValueError, AssertionError) as error:
            self._problem = error


def _path(kind: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    prefix, plural = _GROUPS[kind]
    place = f"/namespaces/{quote(namespace)}" if namespace and kind not in _CLUSTER_WIDE else ""
    tail = "".join(f"/{quote(part)}" for part in (name, subresource) if part)
    return f"{prefix}{place}/{plural}{tail}"
