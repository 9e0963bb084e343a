"""The fate of every field of a Pod: the table README shows and `translate` and `status` obey. Pure.

Pods are copied by deny-list, so a field that Kubernetes adds travels by itself. It is then missing here, and the test
that holds this table against the live OpenAPI document fails until somebody has decided about it.
"""

from typing import Final, Literal, NamedTuple

Fate = Literal["carried", "translated", "home-only", "refused"]


class Field(NamedTuple):
    """What happens to one field, and why, in the words README uses."""

    fate: Fate
    note: str = ""


_CARRIED: Final = Field("carried")
_CONTAINERS: Final = Field(
    "translated", "the injected token mount goes; downward API shows home's names; image edits travel"
)
_STATUSES: Final = Field("translated", "of home's containers only; restartCount never falls")
_SCHEDULED: Final = Field("home-only", "home's scheduler has acted on it")

SPEC: Final[dict[str, Field]] = {
    "activeDeadlineSeconds": Field("carried", "later edits too"),
    "affinity": Field(
        "translated", "node affinity met by the virtual Node's own labels goes; Pod affinity becomes a wish"
    ),
    "automountServiceAccountToken": Field("translated", "false: home's token means nothing at the peer"),
    "containers": Field(
        "translated", "the injected token mount goes; downward API shows home's names; image edits travel"
    ),
    "dnsConfig": _CARRIED,
    "dnsPolicy": _CARRIED,
    "enableServiceLinks": _CARRIED,
    "ephemeralContainers": Field("translated", "sent to the peer's subresource when they appear"),
    "evictionResponders": Field("home-only", "evictions are asked for at home"),
    "hostAliases": _CARRIED,
    "hostIPC": _CARRIED,
    "hostNetwork": _CARRIED,
    "hostPID": _CARRIED,
    "hostUsers": _CARRIED,
    "hostname": _CARRIED,
    "hostnameOverride": _CARRIED,
    "imagePullSecrets": Field("carried", "with their Secrets"),
    "initContainers": _CONTAINERS,
    "nodeName": Field("home-only", "the peer's scheduler chooses"),
    "nodeSelector": Field("translated", "what the virtual Node's own labels meet goes, os and arch stay"),
    "os": _CARRIED,
    "overhead": Field("home-only", "the peer's RuntimeClass sets it"),
    "preemptionPolicy": Field("home-only", "set at the peer from priorityClassName"),
    "priority": Field("home-only", "set at the peer from priorityClassName"),
    "priorityClassName": Field("carried", "a class of this name, or that `overrides` give, must exist at the peer"),
    "readinessGates": Field("home-only", "judged at home: Ready there = ContainersReady at the peer and the gates"),
    "resourceClaims": Field("refused", "dynamic resource allocation does not reach the peer yet"),
    "resources": Field("carried", "resizes too"),
    "restartPolicy": _CARRIED,
    "runtimeClassName": Field("carried", "a class of this name, or that `overrides` give, must exist at the peer"),
    "schedulerName": _SCHEDULED,
    "schedulingGates": _SCHEDULED,
    "schedulingGroup": _SCHEDULED,
    "securityContext": _CARRIED,
    "serviceAccount": Field("home-only", "the old name of serviceAccountName"),
    "serviceAccountName": Field("translated", "the peer's default account, without a token"),
    "setHostnameAsFQDN": _CARRIED,
    "shareProcessNamespace": _CARRIED,
    "subdomain": _CARRIED,
    "terminationGracePeriodSeconds": _CARRIED,
    "tolerations": Field("translated", "the one for our taint goes; later additions travel"),
    "topologySpreadConstraints": Field("translated", "by vnode.dev/peer: gone; else ScheduleAnyway inside the peer"),
    "volumes": Field("translated", "see the sources below; the injected token volume goes"),
    "workloadRef": _SCHEDULED,
}

# Keys are volume sources; `projected.X` the sources of a projected volume.
VOLUMES: Final[dict[str, Field]] = {
    "configMap": Field("carried", "with the object it names"),
    "secret": Field("carried", "with the object it names"),
    "downwardAPI": Field("translated", "shows home's names"),
    "projected": Field("translated", "source by source"),
    "projected.configMap": Field("carried", "with the object it names"),
    "projected.secret": Field("carried", "with the object it names"),
    "projected.downwardAPI": Field("translated", "shows home's names"),
    "projected.serviceAccountToken": Field("refused", "what home signs does not reach the peer yet"),
    "projected.clusterTrustBundle": Field("refused", "what home signs does not reach the peer yet"),
    "projected.podCertificate": Field("refused", "what home signs does not reach the peer yet"),
    "persistentVolumeClaim": Field("refused", "home's claims do not reach the peer yet"),
    "ephemeral": Field("refused", "home's claims do not reach the peer yet"),
}

STATUS: Final[dict[str, Field]] = {
    "allocatedResources": _CARRIED,
    "conditions": Field("translated", "the peer's kubelet's; PodScheduled and others' types stay home's"),
    "containerStatuses": _STATUSES,
    "ephemeralContainerStatuses": _STATUSES,
    "extendedResourceClaimStatus": Field("home-only"),
    "hostIP": Field("translated", "the virtual Node's address"),
    "hostIPs": Field("translated", "the virtual Node's address"),
    "initContainerStatuses": _STATUSES,
    "message": _CARRIED,
    "nodeAllocatableResourceClaimStatuses": Field("home-only"),
    "nominatedNodeName": Field("home-only"),
    "observedGeneration": Field("translated", "home's generation once the peer has it"),
    "phase": Field("translated", "never goes back; Succeeded and Failed are final"),
    "podIP": Field("translated", "`network.podIPs: hidden` leaves it out, `flat` carries it"),
    "podIPs": Field("translated", "`network.podIPs: hidden` leaves it out, `flat` carries it"),
    "qosClass": Field("home-only"),
    "reason": _CARRIED,
    "resize": _CARRIED,
    "resourceClaimStatuses": Field("home-only"),
    "resources": _CARRIED,
    "startTime": Field("translated", "set once"),
    "volumeHealth": _CARRIED,
}
