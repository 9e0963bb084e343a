"""Peer objects as the apiserver has them -> what is to run, and for each that may not, why. Pure.

Of two Peers in each other's way the one that is served already goes on, else the older one is served. Called by
`peers.controller` with all Peers at once: what one may do depends on the others.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from vnode import names
from vnode.config import OBJECT_SPEC, PeerSpec, SecretRef
from vnode.errors import ConfigError
from vnode.kube.objects import Object
from vnode.peers.status import Said
from vnode.rules import Kubeconfig, Placed, mutual_problems, peer_problems
from vnode.schema import convert

DEFAULT_KEY: Final = "kubeconfig"
_DURATION: Final = re.compile(r"(\d+)(s|m|h)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What is made of one Peer: served with `spec` and `kubeconfig` where it is `accepted`."""

    accepted: Said
    node_name: str
    secret: str = ""  # the Secret it refers to
    spec: PeerSpec | None = None
    kubeconfig: str = field(default="", repr=False)
    server: Any = None  # which apiserver the kubeconfig leads to

    @property
    def serves(self) -> bool:
        """Whether a session is to run for it."""
        return self.accepted.status == "True"


Secrets = Mapping[str, Mapping[str, str] | str]
Served = Mapping[str, tuple[PeerSpec, Any]]


def decide(peers: Iterable[Object], secrets: Secrets, cluster: str, served: Served) -> dict[str, Decision]:
    """A decision for each Peer, by name.

    `secrets` has by name the texts of a Secret, or why there are none; where it has nothing, the Secret has not been
    read yet, and the Peer not been judged: `accepted` is Unknown. `served` has by name what Peers run with now, and
    which apiserver that leads to: it is theirs until they are accepted with something else.
    """
    decisions: dict[str, Decision] = {}
    claims = {name: Placed(*running, f"Peer {name}: ") for name, running in served.items()}
    for peer in sorted(peers, key=lambda peer: _precedence(peer, served)):
        name, decision = peer.meta.name, _alone(peer, secrets, cluster)
        if decision.spec is not None:
            placed = Placed(decision.spec, decision.server or name, f"Peer {name}: ")
            others = [claim for other, claim in claims.items() if other != name]
            if problems := list(mutual_problems(placed, others, cluster)):
                accepted = Said("False", names.PEER_CONFLICT, "; ".join(problems))
                decision = Decision(accepted, decision.node_name, decision.secret, decision.spec)
            elif decision.serves or name not in served:
                claims[name] = placed
        decisions[name] = decision
    return decisions


def _precedence(peer: Object, served: Served) -> tuple[bool, str, str]:
    return peer.meta.name not in served, peer.meta.creation_timestamp or "", peer.meta.name


def _alone(peer: Object, secrets: Secrets, cluster: str) -> Decision:
    """As if there were no other Peer. `spec` is set wherever it is valid: its Node's name is taken."""
    raw = peer.spec()
    name = peer.meta.name
    shown = raw.get("node") if isinstance(raw.get("node"), dict) else {}
    node_name = str((shown or {}).get("name") or name)
    try:
        read: Any = convert(raw, OBJECT_SPEC, "")
    except ConfigError as error:
        return Decision(_refusal(names.INVALID_SPEC, error), node_name)
    reference: SecretRef = read.secretRef
    key = reference.key or DEFAULT_KEY
    place = f"Secret {reference.name}, key {key}"
    parts = {field.name: getattr(read, field.name) for field in msgspec.structs.fields(OBJECT_SPEC)}
    del parts["secretRef"]
    spec = PeerSpec(name=name, kubeconfig=place, **parts)
    if problems := list(peer_problems(spec, cluster)):
        return Decision(Said("False", names.INVALID_SPEC, "; ".join(problems)), node_name, reference.name)
    secret = secrets.get(reference.name)
    if secret is None:
        accepted = Said("Unknown", names.NOT_CONNECTED, f"{place}: not read yet")
        return Decision(accepted, node_name, reference.name, spec)
    if isinstance(secret, str) or key not in secret:
        why = secret if isinstance(secret, str) else "the Secret has no such key"
        return Decision(Said("False", names.KUBECONFIG_ABSENT, f"{place}: {why}"), node_name, reference.name, spec)
    text = secret[key]
    try:
        found = Kubeconfig(text, place, spec.context)
    except ConfigError as error:
        return Decision(_refusal(names.KUBECONFIG_INVALID, error), node_name, reference.name, spec)
    if found.reaches_out:
        message = f"{place}: expected a kubeconfig that holds all it needs, got {', '.join(found.reaches_out)}"
        return Decision(Said("False", names.KUBECONFIG_INVALID, message), node_name, reference.name, spec)
    return Decision(Said("True", names.ACCEPTED), node_name, reference.name, spec, text, found.server)


def _refusal(reason: str, error: ConfigError) -> Said:
    return Said("False", reason, str(error).replace("\n", "; "))


def abandon_at(peer: Object) -> datetime | None:
    """When a Peer that is being deleted goes even if it is not drained; None: never.

    Said by its annotation, a number with `s`, `m` or `h`. What is none of that, or past the end of the calendar, counts
    as absent: it is safer to wait.
    """
    found = _DURATION.fullmatch(peer.meta.annotations.get(names.ABANDON_AFTER, ""))
    if found is None or peer.meta.deletion_timestamp is None:
        return None
    try:
        return datetime.fromisoformat(peer.meta.deletion_timestamp) + timedelta(**{_UNITS[found[2]]: int(found[1])})
    except (OverflowError, ValueError):  # ValueError: a number of thousands of digits
        return None
