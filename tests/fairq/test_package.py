"""The package as it is installed: without the server, with its program and its plugin."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from local.programs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

TESTS = """
import pytest
from fairq import Client


def test_submissions_are_recorded(fairq_submitted):
    with Client() as client:
        client.submit("simulate", {"n": 1})
    assert fairq_submitted[0].payload == {"n": 1}


def test_handlers_need_the_server(run_job):
    run_job("simulate")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "fairq", source / "fairq")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--root-user-action=ignore"]
    run([*pip, *alone, "--target", str(target), str(source)], source)
    return target


def run(
    command: list[str], directory: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=directory,
        env={"PATH": os.defpath, "HOME": str(directory), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_the_client_is_installed(site: Path) -> None:
    installed = {path.name for path in site.iterdir()}

    assert {"fairq", "bin", f"fairq-{PROJECT['version']}.dist-info"} == installed
    assert (site / "fairq" / "py.typed").exists()
    assert (site / "fairq" / "cli" / "main.py").exists()


def test_the_program_knows_its_version(site: Path, tmp_path: Path) -> None:
    ran = run([str(site / "bin" / "fairq"), "--version"], tmp_path, {"PYTHONPATH": str(site)})

    assert ran.stdout.strip() == PROJECT["version"]


def test_the_plugin_is_there_and_says_what_it_lacks(site: Path, tmp_path: Path) -> None:
    (tmp_path / "test_application.py").write_text(TESTS)

    ran = run([sys.executable, "-m", "pytest", "-q"], tmp_path, {"PYTHONPATH": str(site)})

    assert "1 passed, 1 error" in ran.stdout
    assert "fairq.testing needs Fairq's own code" in ran.stdout


def test_what_is_pinned_is_what_the_package_asks_for() -> None:
    pinned = dict(
        line.split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line and "[" not in line
    )

    for line in PROJECT["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name]), line


def test_what_the_package_asks_for_is_what_it_imports() -> None:
    owners = metadata.packages_distributions()
    asked = {Requirement(line).name.lower() for line in PROJECT["dependencies"]}
    imported = {
        line.split()[1].partition(".")[0]
        for path in (ROOT / "fairq").rglob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
    others = imported - set(sys.stdlib_module_names) - {"fairq", "tasks", "pytest"}

    assert {owners[name][0].lower() for name in others} == asked
