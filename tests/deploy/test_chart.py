"""The Helm chart: its values, what it renders to, and that its pods allow sandboxes and no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from scripts import render_chart
from swarm.cli.table import DATABASE
from swarm.cli.table import ROOT as COMMANDS
from swarm.kernel.settings import Settings
from tests.deploy.test_containers import profile
from tests.deploy.tools import CHART, need, passes, run

KUBERNETES = "1.33.0"
VALUES = {
    "scaled": "autoscaling: {enabled: true, maxReplicas: 50}\n",
    "profile of the node": "seccomp: {installer: {enabled: false}}\n",
    "no profile": "seccomp: {mode: unconfined}\n",
    "open network": "networkPolicy: {enabled: false}\n",
    "everything": """\
image: {repository: images.example/swarm, tag: "2", pullSecrets: [{name: images}]}
settings: {max_concurrent_runs: "200", artifact_url: "s3://files/swarm?region=eu-west-1"}
bucket: {existingSecret: swarm-bucket}
worker:
  args: [--label, gpu]
  nodeSelector: {pool: gpu}
  tolerations: [{key: gpu, operator: Exists}]
  affinity: {nodeAffinity: {}}
  annotations: {note: "a: b"}
podDisruptionBudget: {maxUnavailable: 25%}
networkPolicy: {internet: false, database: [{ipBlock: {cidr: 10.1.2.3/32}}]}
serviceAccount: {annotations: {role: swarm}}
""",
}
REFUSED = {
    "misspelt": "workers: {replicas: 3}\n",
    "of another type": "worker: {replicas: many}\n",
    "of no meaning": "seccomp: {mode: none}\n",
    "asleep": "autoscaling: {minReplicas: 0}\n",
    "a secret in the open": "settings: {database_url: postgresql://u:p@h/d}\n",
}


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def page() -> list[dict[str, Any]]:
    return documents(render_chart.PAGE.read_text())


def of_kind(kind: str, component: str = "worker") -> dict[str, Any]:
    (found,) = [
        document
        for document in page()
        if document["kind"] == kind and document["metadata"]["name"].endswith(component)
    ]
    return found


def pods(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in found:
        if "template" in document.get("spec", {}):
            yield document["spec"]["template"]["spec"]


def rendered(folder: Path, values: str) -> str:
    path = folder / "values.yaml"
    path.write_text(values)
    command = render_chart.command(path)
    if command is None:
        need("helm")
        raise AssertionError("skipped before")
    return passes(*command)


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def test_the_manifests_for_kubectl_are_those_of_the_chart() -> None:
    text = render_chart.PAGE.read_text()
    assert text.startswith(render_chart.head()), "run `python scripts/render_chart.py`"


def test_they_are_what_it_renders_to(tmp_path: Path) -> None:
    assert documents(rendered(tmp_path, "{}\n")) == page()


def test_the_default_values_fit_their_schema_and_each_is_known() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema_rs.validate(schema(), values)
    assert set(values) == set(schema()["properties"]) - {"global"}


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED)
def test_values_that_mean_nothing_are_refused(values: str) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(schema(), yaml.safe_load(values))


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_variant_renders_to_what_kubernetes_takes(values: str, tmp_path: Path) -> None:
    jsonschema_rs.validate(schema(), yaml.safe_load(values))
    text = rendered(tmp_path, values)
    assert documents(text)
    (tmp_path / "rendered.yaml").write_text(text)
    check = need("kubernetes-validate")
    passes(check, "--strict", "--no-warn", "-k", KUBERNETES, tmp_path / "rendered.yaml")


def test_what_kubernetes_does_not_take_is_noticed(tmp_path: Path) -> None:
    text = render_chart.PAGE.read_text().replace("readOnlyRootFilesystem", "readOnlyRoot")
    (tmp_path / "faulty.yaml").write_text(text)
    check = need("kubernetes-validate")
    assert run(check, "--strict", "-k", KUBERNETES, tmp_path / "faulty.yaml").returncode != 0


def test_helm_itself_finds_no_fault() -> None:
    if shutil.which("helm") is None:
        pytest.skip("helm is missing; the chart is rendered by the libraries that it is made of")
    passes("helm", "lint", "--strict", CHART)


def test_the_profile_is_the_one_that_containers_are_tested_with() -> None:
    assert json.loads((CHART / "files" / "seccomp.json").read_text()) == profile()


def test_the_worker_is_given_what_sandboxes_need_and_nothing_else() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["hostUsers"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "procMount": "Unmasked",
        "appArmorProfile": {"type": "Unconfined"},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "swarm/seccomp.json"},
    }
    assert all("hostPath" not in volume for volume in pod["volumes"])


def test_no_pod_has_power_that_it_does_not_need() -> None:
    for pod in pods(page()):
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
    ordinary = [pod for pod in pods(page()) if pod["securityContext"].get("runAsNonRoot")]
    assert len(ordinary) == 2, "all but the one that writes the profile to the node"


def test_the_commands_are_commands() -> None:
    (worker,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    assert worker["args"] == ["worker"]
    assert "worker" in COMMANDS
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert worker[probe]["exec"]["command"][:2] == ["swarm", "health"]
    assert "health" in COMMANDS
    (migrate,) = of_kind("Job", "migrate")["spec"]["template"]["spec"]["containers"]
    assert migrate["args"] == ["db", "migrate"]
    assert "migrate" in DATABASE


def test_probes_wait_longer_than_the_command_that_they_run() -> None:
    (worker,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        command = worker[probe]["exec"]["command"]
        asks = float(command[command.index("--timeout") + 1]) if "--timeout" in command else 5.0
        assert worker[probe]["timeoutSeconds"] > asks


def test_variables_are_settings_and_secrets_come_from_secrets() -> None:
    known = {f"SWARM_{name.upper()}" for name in Settings.__struct_fields__} | {"SWARM_MASTER_KEY"}
    for pod in pods([of_kind("Deployment"), of_kind("Job", "migrate")]):
        for variable in pod["containers"][0]["env"]:
            assert variable["name"] in known
            is_secret = variable["name"] in ("SWARM_DATABASE_URL", "SWARM_MASTER_KEY")
            assert ("secretKeyRef" in variable.get("valueFrom", {})) == is_secret


def test_the_network_policy_lets_nobody_in() -> None:
    policy = of_kind("NetworkPolicy", "swarm")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []


def test_scaling_counts_the_runs_that_want_a_worker(tmp_path: Path) -> None:
    found = documents(rendered(tmp_path, VALUES["scaled"]))
    (scaled,) = [document for document in found if document["kind"] == "ScaledObject"]
    (worker,) = [document for document in found if document["kind"] == "Deployment"]
    assert "replicas" not in worker["spec"], "two would set it"
    assert scaled["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "postgresql"
