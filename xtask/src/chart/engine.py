"""Helm and the schemas of Kubernetes for `cargo xtask chart`.

Reads requests and writes answers, each a JSON object on a line. The answer is {"ok": …}, or {"refused": TEXT} if the
chart refuses its values.
"""

import json
import sys

import jsonschema
import kubernetes_validate
import yaml
from helm_python import chart as helm
from helm_python.errors import HelmError

# The order in which Helm installs. Other kinds come last.
KINDS = ["Namespace", "NetworkPolicy", "ServiceAccount", "ConfigMap", "Service", "DaemonSet"]
SEVERITIES = ["unknown", "info", "warning", "error"]


def lint(chart, values, namespace, kubernetes):
    """Warnings and errors."""
    report = helm.lint(
        chart, helm.values_from_yaml(values), strict=True, namespace=namespace, kube_version=kubernetes
    )
    messages = [
        f"{message['path']}: {SEVERITIES[message['severity']]}: {message['error']}"
        for message in report["messages"]
        if message["severity"] != 1
    ]
    return messages or report["errors"]


def render(chart, values, namespace):
    """All manifests in the form of `helm template`."""
    values = helm.values_from_yaml(values)
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        rendered = loaded.render(values, name="wsmon", namespace=namespace)
    manifests = []
    for path, text in rendered.items():
        if not path.endswith(".yaml"):
            continue
        for part in text.split("\n---\n"):
            part = part.strip("\n")
            if document := yaml.safe_load(part):
                kind = document["kind"]
                rank = KINDS.index(kind) if kind in KINDS else len(KINDS)
                manifests.append((rank, path, f"---\n# Source: {path}\n{part}\n"))
    return "".join(text for _, _, text in sorted(manifests))


def validate(manifests, kubernetes, resources):
    """What is wrong with the manifests. `resources` has the schemas of kinds that are not Kubernetes' own."""
    problems = []
    for document in yaml.safe_load_all(manifests):
        name = f"{document['kind']} {document['metadata']['name']}"
        try:
            if document["apiVersion"] == "monitoring.coreos.com/v1":
                jsonschema.validate(document, {**resources, "$ref": f"#/$defs/{document['kind']}"})
            else:
                kubernetes_validate.validate(document, kubernetes, strict=True)
        except jsonschema.ValidationError as error:
            place = ".".join(str(part) for part in error.absolute_path)
            problems.append(f"{name}: {place}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            problems.append(f"{name}: {error.message}")
    return problems


def config_file(manifests):
    """The configuration file of wsmon in the manifests."""
    for document in yaml.safe_load_all(manifests):
        if text := document.get("data", {}).get("wsmon.toml"):
            return text
    raise ValueError("no ConfigMap with wsmon.toml")


OPERATIONS = {operation.__name__: operation for operation in (lint, render, validate, config_file)}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        operation = OPERATIONS[request.pop("operation")]
        try:
            answer = {"ok": operation(**request)}
        except HelmError as error:
            answer = {"refused": str(error)}
        print(json.dumps(answer), flush=True)


main()
