"""Checks the deployment files without a cluster: docker-compose.yml, manifests, the chart, alert rules and the dashboard.

`make check` runs it, with tools that the Makefile installs; these contain the schemas, so that nothing is fetched.
"""

import json
import pathlib
import re
import subprocess
import sys

import helm_python
import kubernetes_validate
import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
HERE = ROOT / "envoy"
KUSTOMIZE = HERE / "kustomize"
# The oldest and the newest Kubernetes version for which manifests are checked.
VERSIONS = ["1.29", "1.37"]
ISTIO = {"networking.istio.io", "security.istio.io"}
# The values with which the chart is rendered.
VALUES = [
    {},
    {"istio": {"enabled": True}},
    {"nodes": 5, "replication": 3, "networkPolicies": False, "cluster": {"fanOut": "spread"}},
]

wrong = []


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def check_compose():
    tool = pathlib.Path(sys.executable).with_name("check-jsonschema")
    run = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"], capture_output=True, text=True)
    if run.returncode:
        wrong.append(run.stdout + run.stderr)


def manifests():
    """All manifests as they would be applied, by where they come from."""
    kubectl = pathlib.Path(sys.executable).with_name("kubectl")
    for path in sorted(KUSTOMIZE.glob("**/kustomization.yaml")):
        run = subprocess.run([kubectl, "kustomize", path.parent], capture_output=True, text=True)
        if run.returncode:
            wrong.append(f"{path}: {run.stderr}")
        yield str(path.relative_to(ROOT)), documents(run.stdout)
    with helm_python.Chart.load(str(HERE / "helm" / "miroir")) as chart:
        for values in VALUES:
            chart.validate_schema(values)
            rendered = chart.render(values, name="miroir", namespace="search")
            yield f"the chart with {values}", [document for text in rendered.values() for document in documents(text)]


def check_manifests():
    istio, count = [], 0
    for source, found in manifests():
        for document in found:
            count += 1
            kind = f"{document['kind']}/{document['metadata']['name']}"
            if document["apiVersion"].split("/")[0] in ISTIO:
                istio.append({"source": source, "document": document})
                continue
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except Exception as error:  # what a tool says is wrong is wrong
                    wrong.append(f"{source}: {kind}, Kubernetes {version}: {error}")
    run = subprocess.run(
        ["node", HERE / "check-istio.mjs"], input=json.dumps(istio), capture_output=True, text=True)
    if run.returncode:
        wrong.append(run.stdout + run.stderr)
    if not istio or not count:
        wrong.append("there is nothing to check")
    return count


def expressions():
    """Every PromQL expression, by where it is."""
    rules = yaml.safe_load((HERE / "observability" / "alerts.yaml").read_text())
    runbook = (ROOT / "docs" / "operations.md").read_text()
    for group in rules["groups"]:
        for rule in group["rules"]:
            if not re.search(rf"^\| `{rule['alert']}` \|", runbook, re.MULTILINE):
                wrong.append(f"{rule['alert']}: docs/operations.md does not say what to do")
            yield rule["alert"], rule["expr"]
    dashboard = json.loads((HERE / "observability" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def check_expressions():
    count = 0
    for name, expression in expressions():
        count += 1
        try:
            promql_parser.parse(expression)
        except ValueError as error:
            wrong.append(f"{name}: {expression}: {error}")
    return count


check_compose()
checked, parsed = check_manifests(), check_expressions()
print("\n".join(wrong) or f"{checked} manifests and {parsed} expressions are valid")
sys.exit(bool(wrong))
