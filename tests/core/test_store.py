"""runtime.store: newest wins, and whatever order knowledge comes in, it ends at the truth and every change is told."""

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import pod
from vnode.kube.objects import Key, Object
from vnode.kube.watch import Applied, Deleted, Listed
from vnode.runtime.store import Store

WEB = Key("shop", "web")


def at(version: int, name: str = "web", uid: str = "u1") -> Object:
    """A Pod whose content differs from version to version."""
    return pod(name, uid=uid, version=version, labels={"at": str(version)})


def held(store: Store) -> dict[str, int]:
    return {item.meta.name: item.version for item in store}


def test_the_first_list_is_told_as_new() -> None:
    store = Store()
    assert not store.listed
    assert store.apply(Listed([at(1)], 5)) == [(WEB, None, at(1))]
    assert store.listed


def test_a_change_is_told_with_what_was_before() -> None:
    store = Store()
    store.apply(Listed([at(1)], 5))
    assert store.apply(Applied(at(6))) == [(WEB, at(1), at(6))]


def test_a_change_nobody_can_see_is_not_told_but_its_version_counts() -> None:
    store = Store()
    store.apply(Listed([pod(version=1)], 5))
    assert store.apply(Applied(pod(version=6))) == []
    assert held(store) == {"web": 6}


def test_a_deletion_is_told_with_the_last_state() -> None:
    store = Store()
    store.apply(Listed([at(1)], 5))
    assert store.apply(Deleted(at(6))) == [(WEB, at(6), None)]
    assert len(store) == 0


def test_the_end_of_what_was_never_known_is_not_told() -> None:
    store = Store()
    store.apply(Listed([], 5))
    assert store.apply(Deleted(at(6))) == []


def test_a_relist_tells_what_has_gone() -> None:
    store = Store()
    store.apply(Listed([at(1), at(2, "api")], 5))
    assert store.apply(Listed([at(2, "api")], 9)) == [(WEB, at(1), None)]
    assert held(store) == {"api": 2}


def test_a_relist_that_finds_all_as_it_was_tells_nothing() -> None:
    store = Store()
    store.apply(Listed([at(1)], 5))
    assert store.apply(Listed([at(1)], 9)) == []


def test_what_was_learnt_before_the_watch_is_told_once() -> None:
    store = Store()
    store.apply(Listed([], 5))
    assert store.learn(at(6)) == [(WEB, None, at(6))]
    assert store.apply(Applied(at(6))) == []


def test_an_older_event_does_not_undo_what_was_learnt() -> None:
    store = Store()
    store.apply(Listed([at(1)], 5))
    store.learn(at(8))
    assert store.apply(Applied(at(7))) == []
    assert held(store) == {"web": 8}


def test_an_answer_older_than_the_watch_does_not_undo_it() -> None:
    store = Store()
    store.apply(Listed([at(1)], 5))
    store.apply(Applied(at(8)))
    assert store.learn(at(7)) == []
    assert held(store) == {"web": 8}


def test_an_answer_that_comes_after_the_end_brings_no_ghost() -> None:
    store = Store()
    store.apply(Listed([at(1)], 5))
    store.apply(Deleted(at(8)))
    assert store.learn(at(7)) == []
    assert len(store) == 0


def test_an_answer_from_before_the_list_that_lacks_it_brings_no_ghost() -> None:
    store = Store()
    store.apply(Listed([], 8))
    assert store.learn(at(7)) == []
    assert len(store) == 0


def test_what_was_learnt_after_a_list_was_made_outlives_it() -> None:
    store = Store()
    store.learn(at(8))
    assert store.apply(Listed([], 7)) == []
    assert held(store) == {"web": 8}


def test_the_end_of_an_earlier_object_of_the_name_leaves_the_new_one() -> None:
    store = Store()
    store.apply(Listed([at(1)], 5))
    store.learn(at(9, uid="u2"))
    assert store.apply(Deleted(at(8))) == []
    assert held(store) == {"web": 9}


def test_forgetting_needs_the_right_uid() -> None:
    store = Store()
    store.apply(Listed([at(1)], 5))
    store.forget(WEB, "another")
    assert held(store) == {"web": 1}
    store.forget(WEB, "u1")
    assert held(store) == {}


def test_a_server_restored_from_a_backup_is_believed() -> None:
    store = Store()
    store.apply(Listed([at(90), at(95, "api")], 100))
    told = store.apply(Listed([at(40)], 50))
    assert sorted(told) == [(Key("shop", "api"), at(95, "api"), None), (WEB, at(90), at(40))]
    assert held(store) == {"web": 40}


def test_versions_that_are_no_numbers_still_follow_the_order_of_events() -> None:
    store = Store()
    store.apply(Listed([pod(resourceVersion="abc", labels={"at": "1"})], 0))
    store.apply(Applied(pod(resourceVersion="abd", labels={"at": "2"})))
    assert [item.meta.labels for item in store] == [{"at": "2"}]
    store.apply(Deleted(pod(resourceVersion="abe")))
    assert len(store) == 0


def _finished_are_left_out(item: Object) -> Object | None:
    return None if item.meta.labels.get("finished") else item


def test_what_the_transform_turns_away_is_gone_for_the_readers() -> None:
    store = Store(_finished_are_left_out)
    assert store.apply(Listed([pod(version=1), pod("job", version=2, labels={"finished": "y"})], 5)) == [
        (WEB, None, pod(version=1))
    ]
    ended = pod(version=6, labels={"finished": "y"})
    assert store.apply(Applied(ended)) == [(WEB, pod(version=1), None)]
    assert store.apply(Applied(ended)) == []


class History:
    """The truth at the server, and the store that hears of it by three ways."""

    def __init__(self) -> None:
        self.events: list[Applied | Deleted] = []
        self.truth: dict[Key, Object] = {}
        self.heard = 0
        self.store = Store()
        self.told: dict[Key, Object] = {}

    def put(self, name: str) -> None:
        version = len(self.events) + 1
        before = self.truth.get(Key("shop", name))
        uid = before.uid if before else f"uid{version}"
        item = at(version, name, uid)
        self.truth[item.key] = item
        self.events.append(Applied(item))

    def delete(self, name: str) -> None:
        if gone := self.truth.pop(Key("shop", name), None):
            self.events.append(Deleted(at(len(self.events) + 1, name, gone.uid)))

    def answer(self, number: int) -> None:
        """An answer to a write of ours: any state there ever was, come late or not."""
        states = [event.item for event in self.events if isinstance(event, Applied)]
        if states:
            self.listen_to(self.store.learn(states[number % len(states)]))

    def absent(self, name: str) -> None:
        """A 404 to a request of ours."""
        key = Key("shop", name)
        held = self.store.get(key)
        if held is not None and key not in self.truth:
            self.store.forget(key, held.uid)
            self.told.pop(key, None)

    def watch(self, count: int) -> None:
        for event in self.events[self.heard : self.heard + count]:
            self.listen_to(self.store.apply(event))
            self.heard += 1

    def relist(self, _: object) -> None:
        if self.events:
            self.heard = len(self.events)
            self.listen_to(self.store.apply(Listed(list(self.truth.values()), self.heard)))

    def listen_to(self, changes: list[tuple[Key, Object | None, Object | None]]) -> None:
        for key, before, now in changes:
            assert (before is None) == (key not in self.told)
            if now is None:
                del self.told[key]
            else:
                self.told[key] = now


names = st.sampled_from(["web", "api"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), names),
        st.tuples(st.just("delete"), names),
        st.tuples(st.just("answer"), st.integers(0, 30)),
        st.tuples(st.just("absent"), names),
        st.tuples(st.just("watch"), st.integers(1, 4)),
        st.tuples(st.just("relist"), st.none()),
    ),
    max_size=30,
)


@given(steps)
def test_any_interleaving_of_answers_watch_and_lists_ends_at_the_truth(taken: list[tuple[str, object]]) -> None:
    history = History()
    for step, argument in taken:
        getattr(history, step)(argument)
    history.watch(len(history.events))
    assert {item.key: item for item in history.store} == history.truth
    assert history.told == history.truth


def in_space(namespace: str, name: str, version: int) -> Object:
    return pod(name, namespace=namespace, uid=f"{namespace}-{name}", version=version)


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    store = Store()
    store.apply(Listed([in_space("a", "x", 1)], 5, "a"))
    store.apply(Listed([in_space("b", "y", 2)], 3, "b"))
    gone = store.apply(Listed([], 9, "a"))
    assert gone == [(Key("a", "x"), in_space("a", "x", 1), None)]
    assert held(store) == {"y": 2}


def test_what_one_namespaces_watch_has_shown_hides_no_answer_about_another() -> None:
    store = Store()
    store.apply(Listed([], 50, "a"))
    store.apply(Listed([], 3, "b"))
    assert store.learn(in_space("a", "late", 40)) == []  # its watch was silent about it by 50: it has gone again
    assert store.learn(in_space("b", "new", 40)) == [(Key("b", "new"), None, in_space("b", "new", 40))]
