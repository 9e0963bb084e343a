"""pods.plan on a toy world: two apiservers, a user, the peer's kubelet, and a vnode that sees late and forgets.

One name is enough: pairs do not know each other. Whatever happens, in whatever order, the world comes to rest with no
copy too many, nothing that ran is started again, and what home was told is never taken back.
"""

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.builders import NOW, ROUTE, STAMP, VIEW, container, finished, raw_pod, running
from tests.strategic import merged
from vnode import names
from vnode.kube.objects import Json, JsonDict, Key, Object, from_dict
from vnode.kube.watch import Applied, Deleted, Event, Listed
from vnode.pods.plan import Action, Create, DeleteRemote, Refuse, ReleaseLocal, Update, WriteStatus, plan
from vnode.pods.status import TERMINAL, remote_condition_patch, unready_patch
from vnode.policy.route import local_key
from vnode.runtime.store import Store

HOME, PEER = Key("shop", "web"), Key("shop-home", "web")
RANK = {"": 0, "Pending": 1, "Running": 2, "Succeeded": 3, "Failed": 3}
FINALIZER = "batch.kubernetes.io/job-tracking"


class Server:
    """An apiserver that holds at most one Pod, and the watch of it that vnode has not read yet."""

    def __init__(self) -> None:
        self.version = 0
        self.item: JsonDict | None = None
        self.unread: list[Event] = []
        self.states: list[tuple[str, Json]] = []  # uid and status, since the last look at them
        self.ran: set[str] = set()  # uids of what was ever shown to have started

    def hold(self, item: JsonDict) -> JsonDict:
        """Create or change; the answer."""
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.item = item
        self.unread.append(Applied(from_dict(item)))
        self.states.append((item["metadata"]["uid"], copy.deepcopy(item.get("status") or {})))
        if "startTime" in self.status:
            self.ran.add(self.uid)
        return copy.deepcopy(item)

    def drop(self) -> None:
        assert self.item is not None
        self.version += 1
        self.item["metadata"]["resourceVersion"] = str(self.version)
        self.unread.append(Deleted(from_dict(self.item)))
        self.item = None

    def listed(self) -> Listed:
        self.unread.clear()
        return Listed([from_dict(self.item)] if self.item else [], self.version)

    def delete(self, grace: int, *, at_once: bool) -> JsonDict | None:
        """As `BeforeDelete` and finalizers have it; the answer, when the object is still there."""
        assert self.item is not None
        item = copy.deepcopy(self.item)
        metadata = item["metadata"]
        held_by_others = bool(metadata.get("finalizers"))
        if at_once or grace == 0:
            if not held_by_others:
                self.drop()
                return None
            grace = 0
        if "deletionTimestamp" in metadata and metadata["deletionGracePeriodSeconds"] <= grace:
            return item
        return self.hold(
            {**item, "metadata": {**metadata, "deletionTimestamp": STAMP, "deletionGracePeriodSeconds": grace}}
        )

    def write_status(self, status: Json) -> None:
        assert self.item is not None
        self.hold({**copy.deepcopy(self.item), "status": {**self.item.get("status", {}), **status}})

    @property
    def uid(self) -> str:
        return self.item["metadata"]["uid"] if self.item else ""

    @property
    def status(self) -> JsonDict:
        return dict((self.item or {}).get("status") or {})

    @property
    def leaving(self) -> bool:
        return self.item is not None and "deletionTimestamp" in self.item["metadata"]

    @property
    def done(self) -> bool:
        return self.status.get("phase") in TERMINAL


class World(RuleBasedStateMachine):
    """Rules are what may happen; `teardown` lets everybody finish and looks at what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.home, self.peer = Server(), Server()
        self.born = 0
        self.peer_refuses_edits = False
        self.stands_for: dict[str, str] = {}
        self.restart()

    # --- the user, and home's controllers ---

    @initialize(job=st.booleans())
    def a_user_has_created_one(self, job: bool) -> None:
        self.user_creates(job)

    @precondition(lambda self: self.home.item is None)
    @rule(job=st.booleans())
    def user_creates(self, job: bool) -> None:
        self.born += 1
        finalizers: dict[str, Any] = {"finalizers": [FINALIZER]} if job else {}
        self.home.hold(raw_pod(uid=f"home{self.born}", status={"phase": "Pending"}, **finalizers))

    @precondition(lambda self: self.home.item is not None)
    @rule(grace=st.sampled_from([1, 5, 30]))
    def user_deletes(self, grace: int) -> None:
        self.home.delete(grace, at_once=self.home.done)

    @precondition(lambda self: self.home.item is not None)
    @rule()
    def user_deletes_by_force(self) -> None:
        self.home.delete(0, at_once=True)

    @precondition(lambda self: self.home.item is not None)
    @rule()
    def user_edits(self) -> None:
        item = copy.deepcopy(self.home.item)
        assert item is not None
        item["metadata"]["generation"] += 1
        item["spec"]["containers"] = [container(image=f"app:{item['metadata']['generation']}")]
        self.home.hold(item)

    @precondition(lambda self: self.home.done and self.home.item["metadata"].get("finalizers"))
    @rule()
    def job_controller_counts_the_pod(self) -> None:
        item = copy.deepcopy(self.home.item)
        assert item is not None
        item["metadata"]["finalizers"] = []
        self.home.hold(item)
        if self.home.leaving and item["metadata"]["deletionGracePeriodSeconds"] == 0:
            self.home.drop()

    @precondition(lambda self: self.home.item is not None and not self.home.done)
    @rule()
    def somebody_at_home_calls_it_failed(self) -> None:
        self.home.write_status({"phase": "Failed", "reason": "NodeShutdown"})
        self._hear_all()  # before vnode writes: a patch under way, on the older state, is a race every kubelet has, too

    # --- the peer's kubelet, and people there ---

    def _peer_runs(self) -> bool:
        return self.peer.item is not None and not self.peer.leaving and not self.peer.done

    @precondition(_peer_runs)
    @rule(restarts=st.integers(0, 3), ready=st.booleans())
    def kubelet_runs(self, restarts: int, ready: bool) -> None:
        self.peer.write_status(running(restarts, ready=ready))

    @precondition(_peer_runs)
    @rule(phase=st.sampled_from(["Succeeded", "Failed"]))
    def kubelet_finishes(self, phase: str) -> None:
        self.peer.write_status(finished(phase))

    @precondition(_peer_runs)
    @rule()
    def kubelet_evicts(self) -> None:
        self.peer.write_status({**finished("Failed", 137), "reason": "Evicted", "message": "low on memory"})

    @precondition(lambda self: self.peer.leaving and not self.peer.done)
    @rule(phase=st.sampled_from(["Succeeded", "Failed"]))
    def kubelet_stops_a_leaving_pod(self, phase: str) -> None:
        self.peer.write_status(finished(phase))

    @precondition(lambda self: self.peer.leaving)
    @rule()
    def kubelet_releases_a_leaving_pod(self) -> None:
        self.peer.drop()

    @precondition(lambda self: self.peer.item is not None)
    @rule()
    def somebody_deletes_at_the_peer(self) -> None:
        self.peer.delete(30, at_once=self.peer.done or "startTime" not in self.peer.status)

    @precondition(lambda self: self.peer.item is not None)
    @rule()
    def the_peer_loses_it(self) -> None:
        self.peer.drop()

    @rule(refuses=st.booleans())
    def the_peers_policy_changes(self, refuses: bool) -> None:
        self.peer_refuses_edits = refuses

    # --- vnode ---

    @rule()
    def restart(self) -> None:
        """Killed and started: new stores, from new lists; what it saw go is forgotten."""
        self.lost: Object | None = None
        self.seen_to_run: set[str] = set()  # uids at home
        self.away = False  # the peer does not answer
        self.answer: Callable[[], None] | None = None
        self.local, self.remote = Store(), Store()
        self._local_told(self.local.apply(self.home.listed()))
        self._remote_told(self.remote.apply(self.peer.listed()))

    @precondition(lambda self: self.home.unread)
    @rule()
    def home_event_arrives(self) -> None:
        self._local_told(self.local.apply(self.home.unread.pop(0)))

    @precondition(lambda self: self.peer.unread)
    @rule()
    def peer_event_arrives(self) -> None:
        self._remote_told(self.remote.apply(self.peer.unread.pop(0)))

    @rule(peer=st.booleans())
    def a_watch_is_lost_and_lists_again(self, peer: bool) -> None:
        if peer:
            self._remote_told(self.remote.apply(self.peer.listed()))
        else:
            self._local_told(self.local.apply(self.home.listed()))

    @rule()
    def the_peer_falls_silent(self) -> None:
        self.away = True
        self._hear_answer()
        self._say_that_nobody_knows()

    @precondition(lambda self: self.away)
    @rule()
    def the_peer_answers_again(self) -> None:
        self.away = False
        self._remote_told(self.remote.apply(self.peer.listed()))

    def _say_that_nobody_knows(self) -> None:
        local = self.local.get(HOME)
        # Only on the newest version of the Pod, as `pods.controller` writes: any other is a conflict.
        if local and local.version == self.home.version and (patch := unready_patch(local, NOW)):
            self._patch_home(patch, hears=True)
            self._hear_answer()

    @precondition(lambda self: not self.away)
    @rule()
    def all_is_quiet_for_a_moment(self) -> None:
        self._hear_all()
        for _ in range(5):
            self._carry_out(self._plan())
            self._hear_all()

    @rule()
    def vnode_takes_a_step(self) -> None:
        if self.away:
            self._say_that_nobody_knows()
        else:
            self._carry_out(self._plan())

    @precondition(lambda self: not self.away)
    @rule()
    def vnode_is_killed_before_the_answer(self) -> None:
        self._carry_out(self._plan(), hears=False)
        self.restart()

    def _plan(self) -> Action | None:
        self._hear_answer()
        return plan(self.local.get(HOME), self.remote.get(PEER), self.lost, ROUTE, VIEW, NOW)

    def _local_told(self, changes: list[tuple[Key, Object | None, Object | None]]) -> None:
        if any(now is None for _, _, now in changes):
            self.lost = None

    def _remote_told(self, changes: list[tuple[Key, Object | None, Object | None]]) -> None:
        for _, before, now in changes:
            local = self.local.get(HOME)
            if (seen := now or before) and "startTime" in seen.status():
                self.seen_to_run.add(seen.meta.annotations[names.ORIGIN_UID])
            if now is None and before and local and before.meta.annotations[names.ORIGIN_UID] == local.uid:
                self.lost = before

    def _carry_out(self, action: Action | None, hears: bool = True) -> bool:
        """Do it as `pods.controller` does; whether anything in the world, or in what vnode knows, has changed."""
        before = self._state()
        match action:
            case Create(manifest):
                self._create(copy.deepcopy(manifest), hears)
            case Update(_, patches):
                self._update(patches, hears)
            case DeleteRemote():
                self._delete(action, hears)
            case WriteStatus(patch):
                self._patch_home(patch, hears)
            case ReleaseLocal(uid):
                if self.home.uid == uid:
                    self.home.delete(0, at_once=True)
            case Refuse():
                raise AssertionError("nothing in this world is refused")
        return before != self._state()

    def _state(self) -> tuple[object, ...]:
        return self.home.version, self.peer.version, self.local.get(HOME), self.remote.get(PEER), self.answer

    def _create(self, manifest: JsonDict, hears: bool) -> None:
        if self.peer.item is not None:  # 409: look, and learn whose it is
            self._learn(self.remote, self._remote_told, self.peer.item, hears)
            return
        uid = manifest["metadata"]["annotations"][names.ORIGIN_UID]
        assert uid not in self.home.ran | self.seen_to_run, "it ran already"
        self.born += 1
        manifest["metadata"]["uid"] = f"peer{self.born}"
        manifest["status"] = {"phase": "Pending"}
        self._learn(self.remote, self._remote_told, self.peer.hold(manifest), hears)

    def _update(self, patches: list[Any], hears: bool) -> None:
        if self.peer_refuses_edits:
            local = self.local.get(HOME)
            assert local is not None
            if patch := remote_condition_patch(local, names.REMOTE_REFUSED, "policy", NOW):
                self._patch_home(patch, hears)
            return
        for patch in patches:
            if self.peer.uid == patch.body["metadata"]["uid"]:
                answer = self.peer.hold(merged(copy.deepcopy(self.peer.item), patch.body))
                self._learn(self.remote, self._remote_told, answer, hears)

    def _delete(self, action: DeleteRemote, hears: bool) -> None:
        held = self.remote.get(PEER)
        if action.orphan and held and self.home.uid == held.meta.annotations[names.ORIGIN_UID]:
            return  # home itself says that it is wanted after all
        if self.peer.uid != action.uid:
            self.remote.forget(PEER, action.uid)
            return
        at_once = self.peer.done or "startTime" not in self.peer.status
        answer = self.peer.delete(30 if action.grace_s is None else action.grace_s, at_once=at_once)
        if answer is not None:
            self._learn(self.remote, self._remote_told, answer, hears)

    def _patch_home(self, patch: Json, hears: bool) -> None:
        if self.home.uid != patch["metadata"]["uid"]:
            return
        answer = self.home.hold(merged(copy.deepcopy(self.home.item), patch))
        self._learn(self.local, self._local_told, answer, hears)

    def _learn(self, store: Store, tell: Callable[[Any], None], answer: JsonDict, hears: bool) -> None:
        if hears:
            self._hear_answer()
            self.answer = lambda: tell(store.learn(from_dict(answer)))

    def _hear_answer(self) -> None:
        """Events may overtake an answer; the next step does not."""
        if self.answer is not None:
            self.answer()
        self.answer = None

    # --- what must hold ---

    @invariant()
    def what_home_was_told_is_never_taken_back(self) -> None:
        for (uid, before), (owner, now) in zip(self.home.states, self.home.states[1:], strict=False):
            if uid != owner:
                continue
            assert RANK[now.get("phase", "")] >= RANK[before.get("phase", "")]
            if before.get("phase") in TERMINAL:
                assert now["phase"] == before["phase"]
                assert now.get("containerStatuses") == before.get("containerStatuses")
            if "startTime" in before:
                assert now["startTime"] == before["startTime"]
            assert now.get("observedGeneration", 0) >= before.get("observedGeneration", 0)
            counts = {entry["name"]: entry["restartCount"] for entry in now.get("containerStatuses") or ()}
            for entry in before.get("containerStatuses") or ():
                assert counts[entry["name"]] >= entry["restartCount"]
        del self.home.states[:-1]

    @invariant()
    def a_mirror_stands_for_one_home_pod_and_no_other_ever(self) -> None:
        if self.peer.item is not None:
            mirror = from_dict(self.peer.item)
            assert local_key(mirror) == HOME
            origin = mirror.meta.annotations[names.ORIGIN_UID]
            assert self.stands_for.setdefault(mirror.uid, origin) == origin

    def teardown(self) -> None:
        if self.away:
            self.the_peer_answers_again()
        for _ in range(60):
            if not self._settle():
                break
        else:
            raise AssertionError(f"the world does not come to rest: {self._plan()}")
        if self.home.item is None:
            assert self.peer.item is None, "an orphan is left"
            return
        assert not self.home.leaving, "a Pod that nobody lets go"
        if self.home.done:
            assert self.peer.item is None or self.peer.done, "what has finished at home runs at the peer"
            return
        assert self.peer.item is not None, "a Pod without a mirror"
        mirror = from_dict(self.peer.item)
        assert mirror.meta.annotations[names.ORIGIN_UID] == self.home.uid
        assert RANK[self.home.status["phase"]] >= RANK[self.peer.status["phase"]]
        here, there = (side.status.get("containerStatuses") or [{}] for side in (self.home, self.peer))
        assert here[0].get("ready") == there[0].get("ready"), "home shows an old state"
        assert _ready(self.home.status) == _ready(self.peer.status), "Ready is not what it is at the peer"
        if not self.peer_refuses_edits:
            assert mirror.spec()["containers"] == from_dict(self.home.item).spec()["containers"]
            if "startTime" in self.peer.status:  # before that nobody waits for it
                assert self.home.status["observedGeneration"] == self.home.item["metadata"]["generation"]

    def _hear_all(self) -> bool:
        heard = bool(self.home.unread or self.peer.unread)
        while self.home.unread:
            self.home_event_arrives()
        while self.peer.unread:
            self.peer_event_arrives()
        return heard

    def _settle(self) -> bool:
        """One round in which nobody does anything new; whether anything moved."""
        moved = self._hear_all()
        moved |= self._carry_out(self._plan())
        if self.peer.leaving:
            self.kubelet_releases_a_leaving_pod()
            moved = True
        if self.home.item and self.home.done and self.home.item["metadata"].get("finalizers"):
            self.job_controller_counts_the_pod()
            moved = True
        return moved


def _ready(status: Json) -> str:
    return next((str(entry["status"]) for entry in status.get("conditions") or () if entry["type"] == "Ready"), "")


TestTheWorldComesToRest = World.TestCase
TestTheWorldComesToRest.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
