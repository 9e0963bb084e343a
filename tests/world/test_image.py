"""The image, as far as a machine without a registry can go: the Dockerfile's own steps, and what they make at work.

The stages' base is this machine's Python; user, file system and rights are those of a restricted Pod.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.expect import eventually
from tests.world.accounts import DEPLOY, kubeconfig
from tests.world.api import Api
from tests.world.vnodes import condition
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.processes import ProcessGroup

PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin")
CONTAINER = (
    "mount --make-rprivate / && mount -o remount,ro,bind / && mount -t tmpfs tmpfs /tmp && exec setpriv {} -- {}"
)
RESTRICTED = "--reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all"


@dataclass(frozen=True)
class Stage:
    """One stage of the Dockerfile: its instructions in order."""

    steps: list[tuple[str, str]]

    def __getitem__(self, name: str) -> list[str]:
        return [argument for instruction, argument in self.steps if instruction == name]


def stages() -> list[Stage]:
    """What the Dockerfile says."""
    found: list[Stage] = []
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        instruction, _, argument = line.partition(" ")
        if instruction == "FROM":
            found.append(Stage([]))
        elif found and re.fullmatch("[A-Z]+", instruction):
            found[-1].steps.append((instruction, argument))
    return found


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The root in which the build stage's steps were carried out; `/` stands for it in their absolute paths."""
    if PYTHON is None or os.getuid() != 0:
        pytest.skip("needs root, and a Python that other users may run")
    root = Path(tempfile.mkdtemp(prefix="vnode-image-", dir="/var/tmp"))
    root.chmod(0o755)
    source = root / "src"
    source.mkdir()
    environment = {"PATH": f"{Path(PYTHON).parent}:/usr/bin:/bin", "HOME": os.environ["HOME"]}
    try:
        for instruction, argument in stages()[0].steps:
            match instruction:
                case "ENV":
                    environment |= dict(pair.split("=") for pair in argument.split())
                    environment.pop("PIP_NO_CACHE_DIR", None)  # an image needs no cache; whoever runs this often does
                case "COPY":
                    *origins, to = argument.split()
                    for origin in origins:
                        place = DEPLOY.parent / origin
                        if place.is_dir():
                            shutil.copytree(place, source / to, ignore=shutil.ignore_patterns("__pycache__"))
                        else:
                            target = source / to / place.name if to.endswith("/") else source / to
                            target.parent.mkdir(parents=True, exist_ok=True)
                            shutil.copy(place, target)
                case "RUN":
                    command = argument.replace("/opt/", f"{root}/opt/")
                    subprocess.run(["sh", "-ec", command], cwd=source, env=environment, check=True, timeout=250)
        yield root
    finally:
        shutil.rmtree(root)


def container(image: Path, *arguments: str | Path) -> list[str]:
    """The command line of the image's entry point under the restrictions of its Pod."""
    (entry,) = stages()[-1]["ENTRYPOINT"]
    (executable,) = yaml.safe_load(entry)
    command = " ".join(map(str, (f"{image}{executable}", *arguments)))
    return ["unshare", "--mount", "sh", "-c", CONTAINER.format(RESTRICTED, command)]


def test_the_last_stage_runs_as_nobody_in_particular() -> None:
    assert stages()[-1]["USER"] == ["65532:65532"]
    assert stages()[-1]["RUN"] == []  # nothing is added to what was built


def test_the_command_line_works_without_rights_on_a_read_only_file_system(image: Path) -> None:
    done = subprocess.run(container(image, "--version"), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "vnode 0.1.0\n"), done.stderr
    assert not (image / "opt" / "vnode" / "bin" / "pip").exists()


def test_vnode_runs_without_rights_on_a_read_only_file_system(
    image: Path, home: Cluster, peer_a: Cluster, tmp_path: Path
) -> None:
    for cluster in (home, peer_a):
        copy = shutil.copy(kubeconfig(cluster.plane), image / f"{cluster.name}.conf")
        os.chown(copy, 65532, 65532)
    peers = [{"name": "imaged", "kubeconfig": "peer-a.conf"}]
    config = {"cluster": "image", "kubelet": {"address": "127.0.0.1"}, "peers": peers}
    (image / "vnode.yaml").write_text(yaml.safe_dump(config))
    api, processes = Api(home.plane), ProcessGroup(tmp_path)
    flags = ("--config", image / "vnode.yaml", "--kubeconfig", image / "home.conf", "--admin-port", "0")
    processes.start("vnode", container(image, "run", *flags))
    try:
        eventually(
            "its Node is Ready",
            lambda: condition(api.find("Node", "", "imaged"), "Ready").get("status") == "True",
            limit_s=60,
        )
        assert '"level": "error"' not in processes.log("vnode").read_text()
    finally:
        processes.stop()
        api.delete("Node", "", "imaged")
