"""The components of a cluster of another Kubernetes version, built once into the cache of `vnode.devcluster.build`.

Nothing is pinned here: `k8s.io/kubernetes` at that version is itself the main module, with its own go.mod and go.sum;
only its staging modules, which it has by path, are taken at the version that was published with it.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from vnode.devcluster.build import cache_dir, find_go, kube_ldflags

COMPONENTS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
MODULE: Final = "k8s.io/kubernetes"

_STAGING: Final = re.compile(r"=> \./staging/src/(\S+)")
_ENV: Final = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def newest_patch(minor: str) -> str:
    """The version (`1.36.3`) of a minor one (`v1.36`) that the module proxy serves; a full version is kept."""
    wanted = minor.removeprefix("v")
    if wanted.count(".") == 2:
        return wanted
    served = _go("list", "-m", "-versions", "-json", MODULE)["Versions"]
    patches = [int(match[1]) for one in served if (match := re.fullmatch(rf"v{re.escape(wanted)}\.(\d+)", one))]
    if not patches:
        raise SystemExit(f"the module proxy serves no {MODULE} v{wanted}")
    return f"{wanted}.{max(patches)}"


def built(version: str) -> Path:
    """The directory with the `COMPONENTS` of `version`, each built if it is not there yet."""
    directory = cache_dir() / "bin" / f"k8s-{version}"
    directory.mkdir(parents=True, exist_ok=True)
    missing = [name for name in COMPONENTS if not (directory / name).exists()]
    if not missing:
        return directory
    source = Path(_go("mod", "download", "-json", f"{MODULE}@v{version}")["Dir"])
    with tempfile.TemporaryDirectory(prefix="vnode-skew-") as folder:
        modfile = Path(folder) / "go.mod"
        modfile.write_text(_STAGING.sub(rf"=> \1 v0.{version.partition('.')[2]}", (source / "go.mod").read_text()))
        modfile.with_suffix(".sum").write_bytes((source / "go.sum").read_bytes())
        for name in missing:
            print(f"building {name} {version}, some minutes", flush=True)
            unfinished = directory / f".{name}"
            flags = [f"-modfile={modfile}", "-trimpath", f"-ldflags={kube_ldflags(version)}", f"-o={unfinished}"]
            subprocess.run([find_go(), "build", *flags, f"./cmd/{name}"], cwd=source, env=_ENV, check=True)
            unfinished.rename(directory / name)
    return directory


def _go(*arguments: str) -> Mapping[str, Any]:
    """What a go command says as JSON."""
    done = subprocess.run([find_go(), *arguments], cwd="/", env=_ENV, stdout=subprocess.PIPE, check=True)
    answer: Mapping[str, Any] = json.loads(done.stdout)
    return answer
