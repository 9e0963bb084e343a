"""Status up: what a home Pod's status becomes, given its mirror's, as the patch that gets it there. Pure.

The rules are the kubelet's (`status_manager.go`, `kubelet_pods.go` at v1.37; `kubelet-contract.md` section 5): phases
never go back and terminal ones are final, startTime is set once, restart counts never fall, conditions of others are
left alone. Patches are strategic merge patches with the uid as precondition.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from vnode import names
from vnode.kube.objects import Json, JsonDict, Object, timestamp
from vnode.pods.fields import STATUS
from vnode.pods.shape import HEAD, SHAPE, STATUS_LISTS, Shape

TERMINAL: Final = frozenset({"Succeeded", "Failed"})
_RANK: Final = {"": 0, "Pending": 1, "Running": 2, "Succeeded": 3, "Failed": 3}
_OURS_TO_WORK_OUT: Final = frozenset(name for name, entry in STATUS.items() if entry.fate != "carried")
# A container that waits for one of these is on its way.
BEGINNINGS: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
# What our own earlier write may have left and the mirror no longer says.
_CLEARED: Final = ("message", "reason", "resize", "podIP", "podIPs")
# What a kubelet owns and therefore removes (`kubelet/types/pod_status.go`, v1.37), less the scheduler's PodScheduled.
# Any other type stays, domain or not: "ready-to-serve" is a legal readiness gate.
_OWNED: Final = frozenset(
    {
        "Ready",
        "Initialized",
        "ContainersReady",
        "PodReadyToStartContainers",
        "PodResizeInProgress",
        "PodResizePending",
        "AllContainersRestarting",
    }
)


@dataclass(frozen=True, slots=True)
class View:
    """What home is shown of a peer's addresses: the Node's own, and Pods' ones or none (`network.podIPs`)."""

    host_ip: str
    show_pod_ips: bool = False


def phase(pod: Object) -> str:
    """The Pod's phase, "" when there is none yet."""
    return str(HEAD.decode(pod.raw_status or b"{}").phase or "")


def done(pod: Object) -> bool:
    """True once the Pod has Succeeded or Failed: nothing about it changes any more."""
    return phase(pod) in TERMINAL


def started(pod: Object) -> bool:
    """True once a kubelet has taken the Pod up (`startTime`): if its mirror is lost now, it must not run again."""
    return HEAD.decode(pod.raw_status or b"{}").start_time is not None


def failing(phase: str, *, refused: bool, waiting: Iterable[str]) -> bool:
    """True for a Pod that somebody must look at.

    It failed, it cannot go to the peer or be scheduled there (`refused`: our condition is False), or a container of it
    is `waiting`, by these reasons, for an image or after a crash.
    """
    return phase == "Failed" or refused or not BEGINNINGS.issuperset(waiting)


def status_patch(local: Object, remote: Object, view: View, *, in_step: bool) -> JsonDict | None:
    """The patch of `local`'s status that shows `remote`'s; None when home shows it already, or is final.

    `in_step`: the mirror has all of home's spec, so home's generation counts as observed.
    """
    current = local.status()
    if current.get("phase") in TERMINAL:
        return None
    seen, theirs = current.get("observedGeneration"), remote.status()
    newest = local.meta.generation if in_step else seen
    shape = SHAPE.decode(local.raw_spec)
    wanted = _home_view(shape, theirs, current, view)

    def shown(generation: int | None) -> JsonDict | None:
        more = {"observedGeneration": generation} if generation else {}
        conditions = _conditions(shape, theirs, current, generation, in_step)
        return _patch(local, current, {**wanted, **more}, conditions)

    patch = shown(newest)
    if patch and newest != seen and (local.leaving or "startTime" not in theirs):
        # Before the start and after the end nobody waits for the generation alone: it goes with the next real change.
        return patch if shown(seen) else None
    return patch


def lost_patch(local: Object, last: Object | None, view: View, now: datetime) -> JsonDict | None:
    """The patch that ends `local`, whose mirror is gone for good; None when it is final already.

    `last` is the mirror's last known state: when that was final it is what home is told. Else the Pod has Failed, its
    containers with exit code 137 and reason ContainerStatusUnknown, as a kubelet does with containers it lost
    (`TerminatePod`, `status_manager.go`).
    """
    if last is not None and done(last):
        return status_patch(local, last, view, in_step=False)
    current = local.status()
    if current.get("phase") in TERMINAL:
        return None
    spec, moment = local.spec(), timestamp(now)
    wanted: JsonDict = {
        "phase": "Failed",
        "reason": names.REMOTE_POD_LOST,
        "message": "the Pod at the peer was deleted or lost, not by its owner here",
    }
    for listed, defined in STATUS_LISTS.items():
        held = {entry["name"]: entry for entry in current.get(listed) or ()}
        statuses = [_ended(c["name"], c.get("image", ""), held.get(c["name"]), moment) for c in spec.get(defined) or ()]
        if statuses:
            wanted[listed] = statuses
    conditions = [
        {"type": kind, "status": "False", "reason": "PodFailed", "message": None, "lastTransitionTime": moment}
        for kind in ("Ready", "ContainersReady")
    ]
    return _patch(local, current, wanted, conditions)


def unready_patch(local: Object, now: datetime) -> JsonDict | None:
    """The patch that makes `local` not Ready since nobody can say how it is; None when it is not Ready anyway."""
    held = _by_type(local.status()).get("Ready", {})
    if held.get("status") != "True":
        return None
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": names.PEER_UNREACHABLE,
        "message": "the peer does not answer: how the Pod is there is not known",
        "lastTransitionTime": timestamp(now),
    }
    return {"metadata": {"uid": local.uid}, "status": {"conditions": [condition]}}


def remote_condition_patch(local: Object, reason: str, message: str, now: datetime) -> JsonDict | None:
    """The patch that puts our condition (False, why) on a Pod that has no mirror; None when it says so already."""
    current = local.status()
    condition = {
        "type": names.REMOTE_CONDITION,
        "status": "False",
        "reason": reason,
        "message": message[:1024],
        "lastTransitionTime": timestamp(now),
    }
    held = _by_type(current).get(names.REMOTE_CONDITION)
    if held and all(held.get(name) == condition[name] for name in ("status", "reason", "message")):
        return None
    return {"metadata": {"uid": local.uid}, "status": {"conditions": [condition]}}


def _home_view(shape: Shape, remote: JsonDict, current: Json, view: View) -> JsonDict:
    wanted = {name: value for name, value in remote.items() if name not in _OURS_TO_WORK_OUT}
    there, here = str(remote.get("phase") or ""), str(current.get("phase") or "")
    wanted["phase"] = there if _RANK.get(there, 0) >= _RANK.get(here, 0) else here
    if start := current.get("startTime") or remote.get("startTime"):
        wanted["startTime"] = start
    if remote.get("hostIP"):
        wanted["hostIP"] = view.host_ip
        wanted["hostIPs"] = [{"ip": view.host_ip}]
    if view.show_pod_ips and remote.get("podIP"):
        wanted["podIP"] = remote["podIP"]
        wanted["podIPs"] = remote.get("podIPs") or [{"ip": remote["podIP"]}]
    for listed in STATUS_LISTS:
        held = {entry["name"]: entry for entry in current.get(listed) or ()}
        order = shape.names(listed)
        if not order:
            continue
        there_by_name = {entry.get("name"): entry for entry in remote.get(listed) or ()}
        statuses = [entry for name in order if (entry := _not_below(there_by_name.get(name), held.get(name)))]
        if statuses:
            wanted[listed] = statuses
    return wanted


def _not_below(status: JsonDict | None, held: JsonDict | None) -> JsonDict | None:
    if status is None:
        return held
    if held and int(held.get("restartCount", 0)) > int(status.get("restartCount", 0)):
        return {**status, "restartCount": held["restartCount"]}
    return status


def _conditions(shape: Shape, remote: Json, current: Json, generation: int | None, in_step: bool) -> list[JsonDict]:
    """The conditions home should show that are ours to write, `$patch: delete` entries for those that went.

    Our own one is left alone while the mirror lacks an edit of home's: it may say why.
    """
    theirs, gates = _by_type(remote), shape.gates
    wanted = []
    for kind, condition in theirs.items():
        if _kubelets(kind) and kind != "PodScheduled" and kind not in gates:
            entry = {
                name: value for name, value in condition.items() if name not in ("observedGeneration", "lastProbeTime")
            }
            if generation:
                entry["observedGeneration"] = generation
            wanted.append(_gated(gates, current, entry) if kind == "Ready" else entry)
    scheduled = theirs.get("PodScheduled", {})
    if in_step and scheduled.get("status") == "False":
        wanted.append({**scheduled, "type": names.REMOTE_CONDITION})
        wanted[-1].pop("lastProbeTime", None)
        wanted[-1].pop("observedGeneration", None)
    names_wanted = {entry["type"] for entry in wanted}
    for kind in _by_type(current):
        ours = kind in _OWNED or (kind == names.REMOTE_CONDITION and in_step)
        if ours and kind not in names_wanted:
            wanted.append({"$patch": "delete", "type": kind})
    return wanted


def _kubelets(kind: str) -> bool:
    """Kubernetes' own condition types have no domain; all others belong to somebody else."""
    return "/" not in kind and "." not in kind


def _gated(gates: list[str], current: Json, ready: JsonDict) -> JsonDict:
    """Ready with home's readiness gates judged (`GeneratePodReadyCondition`, kubelet `status/generate.go`)."""
    if not gates or ready.get("status") != "True":
        return ready
    held = _by_type(current)
    problems = []
    for gate in gates:
        if gate not in held:
            problems.append(f'corresponding condition of pod readiness gate "{gate}" does not exist.')
        elif held[gate].get("status") != "True":
            status = held[gate].get("status")
            problems.append(f'the status of pod readiness gate "{gate}" is not "True", but {status}')
    # Ready since the last of them all was: `minReadySeconds` is counted from here.
    moments = [str(held[gate].get("lastTransitionTime") or "") for gate in gates if gate in held]
    since = max(str(ready.get("lastTransitionTime") or ""), *moments, "")
    entry = {**ready, "lastTransitionTime": since} if since else ready
    if not problems:
        return entry
    return {**entry, "status": "False", "reason": "ReadinessGatesNotReady", "message": ", ".join(problems)}


def _by_type(status: Json) -> dict[str, JsonDict]:
    return {str(condition.get("type")): condition for condition in status.get("conditions") or ()}


def _patch(local: Object, current: Json, wanted: JsonDict, conditions: list[JsonDict]) -> JsonDict | None:
    changed: JsonDict = {name: value for name, value in wanted.items() if current.get(name) != value}
    for name, value in changed.items():
        # Only where there is a map to replace: else the directive would take the new one away (`removeDirectives`).
        if isinstance(value, dict) and isinstance(current.get(name), dict):
            changed[name] = {"$patch": "replace", **value}
    changed.update({name: None for name in _CLEARED if name in current and name not in wanted})
    for name in ("hostIPs", "podIPs"):
        if changed.get(name):
            changed[name] = [{"$patch": "replace"}, *changed[name]]  # their merge key would keep the old address
    held = _by_type(current)
    if differing := [entry for condition in conditions if (entry := _condition(condition, held))]:
        changed["conditions"] = differing
    return {"metadata": {"uid": local.uid}, "status": changed} if changed else None


def _condition(wanted: JsonDict, held: Mapping[str, JsonDict]) -> JsonDict | None:
    """The patch entry for one condition; None when home has it. A kept status keeps its transition time."""
    if "$patch" in wanted:
        return wanted
    before: Json = held.get(wanted["type"], {})
    compared = ("status", "reason", "message", "observedGeneration")
    if before and all((before.get(name) or None) == (wanted.get(name) or None) for name in compared):
        return None
    entry: JsonDict = {**dict.fromkeys(name for name in compared if name in before), **wanted}
    if before.get("status") == wanted.get("status") and before.get("lastTransitionTime"):
        entry["lastTransitionTime"] = before["lastTransitionTime"]
    return entry


def _ended(name: str, image: str, held: Json | None, moment: str) -> JsonDict:
    if held and "terminated" in (held.get("state") or {}):
        return dict(held)
    unknown: dict[str, Any] = {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was deleted at the peer.",
        "finishedAt": moment,
    }
    started_at = ((held or {}).get("state") or {}).get("running", {}).get("startedAt")
    unknown["startedAt"] = started_at or moment
    base = dict(held or {"name": name, "image": image, "imageID": "", "restartCount": 0})
    return {**base, "ready": False, "started": False, "state": {"terminated": unknown}}
