"""What docker-compose.yml, .env.example, Dockerfile and .dockerignore promise, read without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import watkins_ml
from tests.support import compose
from tests.support.compose import FILE, ROOT, MissingVariable

TEXT = FILE.read_text()
REQUIRED = sorted(set(re.findall(r"\$\{(\w+):\?", TEXT)))


@pytest.fixture
def services(env) -> dict:
    return compose.read(env)["services"]


def test_the_file_keeps_to_the_compose_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FILE]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_docker_compose_itself_reads_the_file_as_these_tests_do(env, services, tmp_path):
    if subprocess.run(["sh", "-c", "docker compose version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    shutil.copy(FILE, tmp_path)
    command = ["docker", "compose", "--profile=*", "config", "--format=json"]
    said = json.loads(subprocess.run(command, env=os.environ | env, check=True, capture_output=True).stdout)["services"]
    assert said.keys() == services.keys()
    for name, service in services.items():
        for key in service.keys() & {"image", "command", "entrypoint", "environment", "user"}:
            assert said[name][key] == service[key], f"{name}.{key}"


@pytest.mark.parametrize("name", REQUIRED)
def test_without_a_secret_nothing_starts_and_a_sentence_says_what_to_do(env, name):
    for value in ({}, {name: ""}):
        with pytest.raises(MissingVariable, match=rf"{name} is missing .* run sh docker/make-env\.sh"):
            compose.read({key: text for key, text in env.items() if key != name} | value)


def test_every_variable_stands_in_the_example():
    example = (ROOT / ".env.example").read_text()
    for name in set(re.findall(r"\$\{(\w+)", TEXT)):
        assert re.search(rf"^#?{name}=", example, flags=re.MULTILINE), name


def test_only_mlflow_and_the_served_model_are_published_and_only_to_this_machine(env, services):
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "mlflow": ["127.0.0.1:5000:5000"],
        "serving": ["127.0.0.1:5001:5001"],
    }
    open_to_all = compose.read(env | {"BIND_ADDRESS": "0.0.0.0", "MLFLOW_PORT": "8080"})["services"]
    assert open_to_all["mlflow"]["ports"] == ["0.0.0.0:8080:5000"]
    assert open_to_all["serving"]["ports"] == services["serving"]["ports"]  # it asks for no account, so it is not meant
    served = compose.read(env | {"SERVING_ADDRESS": "192.168.1.5", "SERVING_PORT": "8081"})["services"]["serving"]
    assert served["ports"] == ["192.168.1.5:8081:5001"]


def test_the_file_that_opens_the_database_publishes_it_alone_and_where_it_is_told(env):
    file = ROOT / "docker" / "open-database.yml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file]
    assert subprocess.run(command, capture_output=True).returncode == 0
    with pytest.raises(MissingVariable, match="name the address"):
        compose.read(env, file)
    opened = compose.read(env | {"DATABASE_ADDRESS": "192.168.1.5"}, file)
    assert opened["services"] == {"postgres": {"ports": ["192.168.1.5:5432:5432"], "networks": ["opened"]}}
    assert "opened" not in compose.read(env)["networks"]  # so that no other service is on it


def test_up_starts_postgres_and_mlflow_and_nothing_else(services):
    assert [name for name, service in services.items() if not service.get("profiles")] == ["postgres", "mlflow"]


def test_images_are_named_by_tag_and_digest(services):
    version = watkins_ml.__version__
    images = {name: service["image"] for name, service in services.items()}
    assert images["mlflow"] == images["trainer"] == images["serving"] == f"watkins-ml:{version}-cpu"
    assert images["trainer-gpu"] == f"watkins-ml:{version}-cuda"
    base = re.search(r"^ARG BASE=(.+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1]
    for image in (images["postgres"], images["s3"], base):
        assert re.search(r":\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}$", image), image


def test_the_health_check_asks_the_api_under_the_name_that_the_trainer_uses(services):
    check = services["mlflow"]["healthcheck"]["test"][-1]
    assert "/api/2.0/mlflow/" in check and "Authorization" in check
    host = services["trainer"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    assert f'"Host": "{host}"' in check


def test_jobs_are_off_and_artifacts_go_through_the_server_to_a_named_volume(env, services):
    mlflow = services["mlflow"]
    assert mlflow["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert {"--serve-artifacts", "--artifacts-destination=/srv/artifacts"} <= set(mlflow["command"])
    assert mlflow["volumes"] == ["artifacts:/srv/artifacts"]
    assert "artifacts" in compose.read(env)["volumes"]


def test_only_the_gpu_trainer_asks_for_a_gpu_and_is_otherwise_the_trainer(services):
    differs = {key for key in services["trainer-gpu"] if services["trainer-gpu"][key] != services["trainer"].get(key)}
    assert differs == {"image", "build", "profiles", "deploy"}
    (device,) = services["trainer-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services["trainer-gpu"]["build"]["args"]["VARIANT"] == "cuda"


def test_the_served_model_is_the_champion_of_the_name_in_env_and_can_write_only_to_memory(env, services):
    serving = services["serving"]
    assert "--model-uri=models:/watkins-efficientnet@champion" in serving["command"]
    another = compose.read(env | {"SERVED_MODEL": "watkins-baseline"})["services"]["serving"]
    assert "--model-uri=models:/watkins-baseline@champion" in another["command"]
    assert serving["read_only"] is True and "volumes" not in serving
    assert serving["profiles"] == ["serving"] and "/ping" in serving["healthcheck"]["test"][-1]
    address = "MLFLOW_TRACKING_URI"
    assert serving["environment"][address] == services["trainer"]["environment"][address]


def test_the_object_store_makes_the_bucket_that_the_example_names(services):
    example = (ROOT / ".env.example").read_text()
    bucket = re.search(r"^#ARTIFACTS_DESTINATION=s3://(\w+)$", example, flags=re.MULTILINE)[1]
    assert f"-bucket={bucket}" in services["s3"]["command"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY_FILE"):
        assert services["s3"]["environment"][name] == services["mlflow"]["environment"][name] != ""


def test_an_unknown_variant_of_the_image_is_refused_with_a_sentence():
    check = re.search(r"^RUN (case \"\$VARIANT\".+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1]
    refused = subprocess.run(["sh", "-c", check], env={"VARIANT": "tpu"}, capture_output=True, text=True)
    assert (refused.returncode, refused.stderr) == (1, "VARIANT is cpu or cuda, not 'tpu'\n")
    for variant in ("cpu", "cuda"):
        assert subprocess.run(["sh", "-c", check], env={"VARIANT": variant}).returncode == 0


@pytest.mark.parametrize(
    ("variant", "torch", "index", "sentence"),
    [
        ("cpu", "cuda", "some index", "this torch has CUDA; give a TORCH_INDEX of CPU wheels\n"),
        ("cuda", "cpu", "", "this torch has no CUDA; give a TORCH_INDEX of CUDA wheels\n"),
        ("cpu", "cuda", "", ""),  # the default index: CUDA wheels, which run on a CPU too
        ("cpu", "cpu", "some index", ""),
        ("cuda", "cuda", "", ""),
    ],
)
def test_an_image_without_the_torch_of_its_variant_is_not_built(variant, torch, index, sentence):
    dockerfile = (ROOT / "Dockerfile").read_text()
    check = re.search(r'case "\$VARIANT-\$has.+?esac', dockerfile, flags=re.DOTALL)[0].replace("\\\n", "")
    env = {"VARIANT": variant, "has": torch, "TORCH_INDEX": index}
    checked = subprocess.run(["sh", "-c", check], env=env, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (1 if sentence else 0, sentence)


def test_the_image_installs_dependencies_before_it_sees_the_code_and_ends_without_rights():
    steps = re.findall(r"^(?:COPY|RUN|USER) .+", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    install = next(step for step in steps if step.startswith("RUN set -eu; cd /opt/build"))
    assert steps.index(install) < steps.index("COPY . /opt/build/")
    assert steps[-1] == "USER watkins"


def test_secrets_recordings_and_runs_stay_out_of_the_image():
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert kept == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "watkins_ml", "experiments"}
