"""`kubectl logs` through vnode, against the same straight at the peer, of containers that truly write."""

import os
import re
import time
from datetime import datetime

import pytest

from tests.expect import eventually
from tests.followers import follow_many
from tests.world.kubectl import Kubectl, read_line
from tests.world.manifests import bound, pod, shell
from tests.world.vnodes import Space, Vnode
from vnode import names
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import ControlPlane

NODE = "edge-real"


@pytest.fixture
def here(real_space: Space) -> Kubectl:
    """kubectl at home."""
    return Kubectl(real_space.home.plane, real_space.name, {})


@pytest.fixture
def there(real_space: Space) -> Kubectl:
    """kubectl straight at the peer."""
    return Kubectl(real_space.peer.plane, real_space.remote, {})


def logs(kubectl: Kubectl, *args: str) -> tuple[int, bytes, bytes]:
    """What `kubectl logs` gives, without the namespace's name."""
    done = kubectl.run("logs", *args)
    return done.code, done.out, done.err.replace(kubectl.namespace.encode(), b"SPACE")


def test_logs_are_byte_for_byte_those_of_the_peer_for_every_parameter(
    real_space: Space, here: Kubectl, there: Kubectl
) -> None:
    script = 'for i in $(seq 1 40); do echo "line $i"; echo "error $i" >&2; done; printf "no newline"'
    containers = [shell(script), shell("echo second; sleep 0.1; echo 2 >&2", name="second")]
    first = [shell("echo first", name="first")]
    real_space.create(pod("talker", NODE, initContainers=first, containers=containers, restartPolicy="Never"))
    real_space.kubectl("wait", "pod/talker", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    stamps = logs(there, "talker", "--timestamps")[1].splitlines()
    assert b"no newline" in stamps[-1]
    stamp = stamps[11].split()[0].decode()
    for flags in (
        (),
        ("--tail=0",),
        ("--tail=1",),
        ("--tail=7",),
        ("--timestamps",),
        ("--limit-bytes=33",),
        ("--since=1h",),
        ("--since-time", stamp),
        ("--since-time", stamp, "--timestamps", "--tail=5"),
        ("-c", "second"),
        ("-c", "first"),
        ("--all-containers", "--prefix"),
        ("--all-containers", "--prefix", "--timestamps", "--tail=1"),
        ("-c", "ghost"),
        ("--previous",),
        ("-f", "--all-containers", "--max-log-requests=1"),
    ):
        ours, theirs = logs(here, "talker", *flags), logs(there, "talker", *flags)
        if "--prefix" in flags:  # kubectl takes the containers in any order
            assert sorted(re.split(rb"(?=\[pod/)", ours[1])) == sorted(re.split(rb"(?=\[pod/)", theirs[1])), flags
        else:
            assert ours == theirs, flags


def test_a_crashing_container_shows_its_restarts_and_its_previous_log(real_space: Space) -> None:
    space = real_space
    space.create(pod("crash", NODE, containers=[shell('echo "attempt"; exit 3')]))

    def restarted() -> bool:
        status = ((space.pod("crash") or {})["status"].get("containerStatuses") or [{}])[0]
        return bool(status["restartCount"] >= 1 and status["lastState"]["terminated"]["exitCode"] == 3)

    eventually("the restart shows at home", restarted, 60)
    waiting = eventually(
        "the back-off shows at home",
        lambda: (space.pod("crash") or {})["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        60,
    )
    assert waiting == "CrashLoopBackOff"
    assert space.kubectl("logs", "crash", "--previous") == "attempt\n"


def test_a_container_that_has_not_started_is_told_in_the_kubelets_words(
    real_space: Space, here: Kubectl, there: Kubectl
) -> None:
    real_space.create(
        pod("unpullable", NODE, containers=[shell("true", image="vnode.test/none:1", imagePullPolicy="Never")]),
        pod("waiting", NODE, initContainers=[shell("sleep 1000", name="first")], containers=[shell("true")]),
        # Of these two the kubelet never hears: the peer has no node for the one, and the other is no Pod there at all.
        bound(
            "unplaced", NODE, nodeSelector={names.PEER: NODE, "kubernetes.io/arch": "s390x"}, containers=[shell("true")]
        ),
        bound("refused", NODE, resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}]),
    )
    for name, reason in (("unpullable", b"ErrImageNeverPull"), ("waiting", b"PodInitializing")):
        words = b'container "main" in pod "%b" is waiting to start: %b' % (name.encode(), reason)
        eventually(f"the kubelet has tried {name}", lambda name=name, words=words: words in logs(there, name)[2])  # type: ignore[misc]
        for flags in ((), ("--previous",), ("--all-containers",)):
            assert logs(here, name, *flags) == logs(there, name, *flags), (name, flags)
    eventually("there is a mirror", lambda: real_space.mirror("unplaced"))
    for name in ("unplaced", "refused"):
        words = b'container "main" in pod "%b" is waiting to start: ContainerCreating' % name.encode()
        code, out, err = logs(here, name)
        assert (code, out, words in err) == (1, b"", True), err
        done = here.run("exec", name, "--", "true")
        assert (done.code, b'container not found ("main")' in done.err) == (1, True), done.err


def test_a_log_is_followed_to_the_end_of_a_pod_that_is_deleted(
    real_space: Space, here: Kubectl, there: Kubectl
) -> None:
    leave = "leave() { for i in 1 2 3 4 5 6; do echo leaving $i; sleep 0.2; done; exit 0; }"
    script = f"{leave}; trap leave TERM; echo up; while true; do sleep 0.1; done"
    real_space.create(pod("slow", NODE, containers=[shell(script)], terminationGracePeriodSeconds=30))
    real_space.wait_ready("slow", limit_s=60)
    with here.started("logs", "-f", "slow") as ours, there.started("logs", "-f", "slow") as theirs:
        assert read_line(ours) == read_line(theirs) == b"up\n"
        real_space.home.delete("Pod", real_space.name, "slow")
        (out, err), direct = ours.communicate(timeout=60), theirs.communicate(timeout=60)
        assert (ours.returncode, out, err) == (theirs.returncode, *direct)
    assert out.endswith(b"leaving 6\n")


def test_a_log_that_was_rotated_is_the_peers(
    real_space: Space, real_peer: Cluster, here: Kubectl, there: Kubectl
) -> None:
    """Not followed while it is rotated: a kubelet's own followers stall at times then, straight at the peer too."""
    script = "seq 1 120000; while [ ! -e /tmp/go ]; do sleep 0.1; done; seq 120001 120009; sleep 1000"
    real_space.create(pod("much", NODE, containers=[shell(script)], terminationGracePeriodSeconds=0))
    folder = real_peer.real_nodes[0].directory / "pod-logs"
    eventually("the log is rotated", lambda: list(folder.glob(f"{real_space.remote}_much_*/main/0.log.*")), 60)
    real_space.kubectl("exec", "much", "--", "touch", "/tmp/go")
    eventually("it goes on", lambda: logs(there, "much")[1].endswith(b"120009\n"))
    for flags in ((), ("--tail=3",), ("--timestamps",), ("--limit-bytes=9",), ("--since=1h",)):
        assert logs(here, "much", *flags) == logs(there, "much", *flags), flags
    with here.started("logs", "-f", "much") as ours, there.started("logs", "-f", "much") as theirs:
        assert read_line(ours) == read_line(theirs)


def lateness(space: Space, kubectl: Kubectl, name: str) -> float:
    """Seconds that the later half of a log came late at most, which is written at 10,000 lines/s; none is missing."""
    script = "for i in $(seq 0 49); do seq $((i * 1000)) $((i * 1000 + 999)); usleep 90000; done"
    space.create(pod(name, NODE, containers=[shell(script)], restartPolicy="Never"))
    eventually("it speaks", lambda: logs(kubectl, name, "--tail=1")[1], 60)
    late, text, seen = list[float](), b"", 0
    with kubectl.started("logs", "-f", "--timestamps", name) as process:
        assert process.stdout is not None
        while more := os.read(process.stdout.fileno(), 65_536):
            now = time.time()
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                assert line.endswith(b" %d" % seen)
                seen += 1
            if lines:
                stamp = lines[-1].split()[0].decode()
                late.append(now - datetime.fromisoformat(f"{stamp[:26]}+00:00").timestamp())
    assert (seen, text) == (50_000, b"")
    return max(late[len(late) // 2 :])


def test_ten_thousand_lines_a_second_are_followed_without_loss_and_without_falling_behind(
    real_space: Space, here: Kubectl, there: Kubectl
) -> None:
    late = lateness(real_space, here, "fast")
    if late >= 1:  # a machine so busy that the peer itself is late says nothing of us
        assert late < 2 * lateness(real_space, there, "again")


def test_many_followers_see_each_line_at_once_and_cost_little(
    real_space: Space, real_vnode: Vnode, home: Cluster
) -> None:
    """The issues' figures: 200 ms for each line at 50 of them, and 100 of them; `tests.bench logs` measures it."""
    space = real_space
    script = "while true; do cut -d' ' -f1 /proc/uptime; sleep 0.2; done"
    space.create(pod("clock", NODE, containers=[shell(script)], terminationGracePeriodSeconds=0))
    space.wait_ready("clock", limit_s=60)
    with real_vnode.growing_less_than(100):
        follow_many(home.plane.kubeconfig, space.name, "clock", followers=100, lines=5)

    def late(plane: ControlPlane, namespace: str) -> float:
        return percentile(95, follow_many(plane.kubeconfig, namespace, "clock", followers=50, lines=15))

    for _ in range(3):
        here = late(home.plane, space.name)
        # A machine so busy that the peer itself is late says nothing of us.
        if here < 0.2 or here < 2 * late(space.peer.plane, space.remote):
            return
    raise AssertionError(f"lines are {here:.2f} s late, and not at the peer")


def percentile(rank: int, values: list[float]) -> float:
    """The value below which `rank` % of them are."""
    return sorted(values)[len(values) * rank // 100]


def test_who_follows_and_does_not_read_costs_nothing_more(real_space: Space, real_vnode: Vnode, here: Kubectl) -> None:
    script = "echo up; while [ ! -e /tmp/go ]; do sleep 0.1; done; yes | head -c 40000000; sleep 1000"
    real_space.create(pod("flood", NODE, containers=[shell(script)], terminationGracePeriodSeconds=0))
    real_space.wait_ready("flood", limit_s=60)
    with real_vnode.growing_less_than(16), here.started("logs", "-f", "flood") as follower:
        assert read_line(follower) == b"up\n"
        real_space.kubectl("exec", "flood", "--", "sh", "-c", "touch /tmp/go; while pidof yes; do sleep 0.1; done")
        eventually("what it wrote can be read", lambda: real_space.kubectl("logs", "flood", "--tail=1") == "y\n")
