"""README says what the code does: its tables, its commands, its rooms."""

import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docs.tables import PAGES, README, TABLES, manifests, written
from vnode import names

ROOT = README.parent


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_tables_are_those_the_code_gives(page: Path) -> None:
    assert written(page) == page.read_text(), "a table is old: run `python -m tests.docs`"


@pytest.mark.parametrize("path", manifests(), ids=str)
def test_the_manifests_are_those_the_code_gives(path: Path) -> None:
    assert path.read_text() == manifests()[path], "a manifest is old: run `python -m tests.docs`"


def test_every_name_of_ours_has_a_meaning() -> None:
    source = Path(names.__file__).read_text()
    listed = TABLES["labels"]() + TABLES["reasons"]() + TABLES["peer_reasons"]()
    for name in re.findall(r'^[A-Z_]+: Final = \(?\s*"(vnode\.dev/[a-z-]+|[A-Z][A-Za-z]+)"', source, re.M):
        assert f"`{name}`" in listed, f"{name} has no comment of the form `# kind: meaning` in names.py"


def test_ci_runs_the_very_test_command_of_readme() -> None:
    commands = re.findall(r"^(python3 -m venv .*)$", README.read_text(), re.M)
    assert len(commands) == 2
    script = (ROOT / ".ci" / "run").read_text()
    install, test = commands[1].split(" && ")[1:]
    assert install.split()[-1].strip("'") in script
    assert script.rstrip().endswith(test)


def test_every_executable_can_be_run() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {"vnode", "kubectl-vnode", "kubectl_complete-vnode"} <= set(scripts)
    for target in scripts.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_room_is_on_the_map() -> None:
    text = README.read_text()
    for room in sorted(path.parent.name for path in (ROOT / "vnode").glob("*/__init__.py")):
        assert f"`{room}/`" in text, f"room {room} is missing in README"


def test_readme_is_short_enough_to_be_read() -> None:
    assert len(README.read_text().splitlines()) <= 250


def test_the_top_level_is_what_it_must_be() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tops = {line.split("/")[0] for line in listed.splitlines()}
    assert {top for top in tops if not top.startswith(".")} == {
        "pyproject.toml",
        "vnode",
        "deploy",
        "tests",
        "README.md",
    }


def test_modules_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "vnode").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 300
    }
    assert not long, f"a module past 300 lines is two ideas: {long}"


def test_the_image_pins_every_package_that_is_asked_for() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "deploy" / "requirements.txt").read_text(), re.M))
    for requirement in map(Requirement, wanted):
        version = pinned.get(requirement.name.lower(), "")
        assert requirement.specifier.contains(version), f"{requirement} is not in deploy/requirements.txt: make it anew"
