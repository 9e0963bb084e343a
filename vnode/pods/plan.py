"""The one next step for a home Pod and its mirror, from what is now true. Pure: no I/O, no clock, no memory.

Orphans and namesakes need no sweeper: each is a pair like any other. `tests/core/test_plan.py` runs this on a toy
world and shows that it comes to rest from any state, without ever starting a finished Pod again.
"""

from dataclasses import dataclass
from datetime import datetime

from vnode import names
from vnode.kube.objects import JsonDict, Key, Object
from vnode.pods import changes, status
from vnode.pods.translate import remote_pod
from vnode.policy.route import Refused, Route


@dataclass(frozen=True, slots=True)
class Create:
    """Make the mirror. The carrier checks that the home namespace may offload and what the spec refers to first."""

    manifest: JsonDict


@dataclass(frozen=True, slots=True)
class Update:
    """Bring the mirror up to what the user changed at home."""

    key: Key
    patches: list[changes.Patch]


@dataclass(frozen=True, slots=True)
class DeleteRemote:
    """Remove exactly this object at the peer. `orphan`: home knows no such Pod; make sure before acting."""

    key: Key
    uid: str
    grace_s: int | None = None
    orphan: bool = False


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Patch home's status."""

    patch: JsonDict


@dataclass(frozen=True, slots=True)
class ReleaseLocal:
    """The Pod's work is over and nothing of it is left at the peer: let the home object go."""

    uid: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Only somebody's edit can help: tell the user, on the Pod."""

    reason: str
    message: str


Action = Create | Update | DeleteRemote | WriteStatus | ReleaseLocal | Refuse


def plan(
    local: Object | None,
    remote: Object | None,
    lost: Object | None,
    route: Route,
    view: status.View,
    now: datetime,
) -> Action | None:
    """The next step, or None when this pair is at rest.

    `local` is a Pod bound to our node; `remote` an object of ours at the peer that stands for it (`route.owns`);
    `lost` the last state of a mirror that is gone, if we saw it go; it counts when it was of exactly this Pod.
    """
    if lost is not None and (local is None or lost.meta.annotations.get(names.ORIGIN_UID) != local.uid):
        lost = None  # it stood for an earlier Pod of this name
    if remote is None:
        return _without_mirror(local, lost, route, view, now) if local else None
    if local is None:
        return None if remote.leaving else DeleteRemote(remote.key, remote.uid, orphan=True)
    if remote.meta.annotations.get(names.ORIGIN_UID) != local.uid:
        # The mirror of an earlier Pod of this name: no second copy before the first is gone.
        return None if remote.leaving else DeleteRemote(remote.key, remote.uid, orphan=True)
    return _pair(local, remote, route, view)


def _without_mirror(
    local: Object, lost: Object | None, route: Route, view: status.View, now: datetime
) -> Action | None:
    if local.leaving:
        # Whoever holds the object by a finalizer (a Job's controller) must find how it ended.
        if local.meta.finalizers and not status.done(local) and (patch := status.lost_patch(local, lost, view, now)):
            return WriteStatus(patch)
        # The apiserver first writes a grace of 0, and then deletes or waits for finalizers. A release that broke off in
        # between (we were killed) looks like one that waits: without finalizers it is to be repeated.
        waits = local.meta.finalizers and local.meta.deletion_grace_period_seconds == 0
        return None if waits else ReleaseLocal(local.uid)
    if status.done(local):
        return None
    if status.started(local) or (lost is not None and (status.started(lost) or status.done(lost))):
        patch = status.lost_patch(local, lost, view, now)
        return WriteStatus(patch) if patch else None
    try:
        return Create(changes.creatable(remote_pod(local, route)))
    except Refused as refused:
        return Refuse(refused.reason, str(refused))


def _pair(local: Object, remote: Object, route: Route, view: status.View) -> Action | None:
    if local.leaving:
        grace = max(1, local.meta.deletion_grace_period_seconds or 0)  # 0 would leave containers without an object
        if not remote.leaving or _sooner(grace, remote.meta.deletion_grace_period_seconds):
            return DeleteRemote(remote.key, remote.uid, grace_s=grace)
    elif status.done(local) and not status.done(remote):
        # A kubelet, too, tears down what the API calls finished (`pod_workers.go`): it may have been replaced by now.
        return None if remote.leaving else DeleteRemote(remote.key, remote.uid)
    refusal: Refused | None = None
    outstanding: list[changes.Patch] = []
    try:
        outstanding = changes.patches(remote_pod(local, route), remote)
    except Refused as refused:
        refusal = refused  # the configuration has changed since it was made: it runs on as it is
    wanted = status.status_patch(local, remote, view, in_step=not outstanding and refusal is None)
    if wanted:
        return WriteStatus(wanted)  # first: a peer that refuses the update for ever must not freeze home's status
    if local.leaving or remote.leaving or status.done(remote) or status.done(local):
        return None
    if refusal is not None:
        return Refuse(refusal.reason, str(refusal))
    return Update(remote.key, outstanding) if outstanding else None


def _sooner(wanted: int, running: int | None) -> bool:
    return running is not None and wanted < running
