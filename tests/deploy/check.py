#!/usr/bin/env python3
"""Holds deploy/ to what it promises: strictly valid for Kubernetes, nothing of the sidecar's within the agent's reach.

Needs the packages of tests/clients/requirements.txt; with VALETKEY_BINARY also asks the binary. Breaks what it checks,
to show that it would notice. Prints a line for each check, and `N passed, N failed, N skipped` at the end.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from kubernetes_validate.utils import all_versions, major_minor

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# Native sidecars are on by default from here on.
OLDEST = "1.29"
# The agent's whole world.
AGENT_VOLUMES = {"ca-public", "tasks", "agent-tmp"}
SIDECAR_ONLY = {"credentials", "ca-key", "policy"}
COMMAND_SECONDS_MAX = 30

Documents = list[dict[str, Any]]


class Tally:
    """What has been checked so far."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0

    def settle(self, name: str, complaints: list[str]) -> None:
        """Counts and prints one result."""
        if complaints:
            self.failed += 1
            print(f"FAIL  {name}: {'; '.join(complaints)}", flush=True)
        else:
            self.passed += 1
            print(f"ok    {name}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """Counts and prints what is not checked."""
        self.skipped += 1
        print(f"skip  {name}: {reason}", flush=True)


def number(version: str) -> tuple[int, ...]:
    """`1.29` as something that can be compared."""
    return tuple(int(part) for part in version.split("."))


def schema_complaints(documents: Documents, version: str) -> list[str]:
    """What the schemas of one version say; unknown kinds and unknown fields are complaints."""
    found = []
    for document in documents:
        try:
            held_to = kubernetes_validate.validate(document, version, strict=True)
            if held_to != version:
                found.append(f"{version}: was held to {held_to}")
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {document.get('kind')}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f"{version}: {error.message}")
    return found


def pod_of(documents: Documents) -> dict[str, Any]:
    """The one pod."""
    (pod,) = (document for document in documents if document["kind"] == "Pod")
    return pod


def containers_of(documents: Documents) -> dict[str, dict[str, Any]]:
    """All containers by name, in the order in which they start."""
    spec = pod_of(documents)["spec"]
    return {container["name"]: container for container in [*spec.get("initContainers", []), *spec["containers"]]}


def mounts_of(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A container's mounts by volume."""
    return {mount["name"]: mount for mount in container.get("volumeMounts", [])}


def flags_of(container: dict[str, Any]) -> dict[str, str]:
    """`--name=value` arguments."""
    return dict(argument[2:].split("=", 1) for argument in container["args"] if argument.startswith("--"))


def the_sidecar_starts_first_and_ends_last(documents: Documents) -> list[str]:
    """A native sidecar, before everything else."""
    init = pod_of(documents)["spec"].get("initContainers", [])
    if not init or init[0]["name"] != "valetkey" or init[0].get("restartPolicy") != "Always":
        return ["the first init container is not the sidecar with restartPolicy Always"]
    return [] if "startupProbe" in init[0] else ["nothing waits until the sidecar is ready"]


def nobody_is_root_and_nobody_is_the_same(documents: Documents) -> list[str]:
    """Each container runs as a user of its own, without any privilege."""
    found = []
    users: dict[int, str] = {}
    for name, container in containers_of(documents).items():
        context = container.get("securityContext", {})
        user = context.get("runAsUser", 0)
        if user == 0 or context.get("runAsGroup", 0) == 0:
            found.append(f"{name} has no user and group of its own")
        if user in users:
            found.append(f"{name} and {users[user]} are the same user")
        users[user] = name
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            found.append(f"{name} can gain privileges")
        if context.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"{name} keeps capabilities")
        if context.get("readOnlyRootFilesystem") is not True:
            found.append(f"{name} can write its root file system")
        if "resources" not in container:
            found.append(f"{name} has no limits")
    return found


def the_pod_shares_nothing_it_need_not(documents: Documents) -> list[str]:
    """Settings of the whole pod."""
    spec = pod_of(documents)["spec"]
    context = spec.get("securityContext", {})
    wanted = {"automountServiceAccountToken": False, "shareProcessNamespace": False, "enableServiceLinks": False}
    found = [f"{name} is not {value}" for name, value in wanted.items() if spec.get(name) is not value]
    found += [f"{name} is on" for name in ("hostPID", "hostIPC", "hostNetwork") if spec.get(name)]
    found += [f"{name} would hold for the agent too" for name in ("fsGroup", "supplementalGroups") if name in context]
    if context.get("runAsNonRoot") is not True or context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("not runAsNonRoot with the default seccomp profile")
    if spec.get("terminationGracePeriodSeconds", 0) < 10:
        found.append("no time to drain")
    return found


def the_agent_has_its_own_and_nothing_else(documents: Documents) -> list[str]:
    """No credential, no CA key, no control socket, no policy."""
    containers = containers_of(documents)
    agent = mounts_of(containers["agent"])
    found = [f"the agent mounts {name}" for name in agent.keys() - AGENT_VOLUMES]
    found += [f"the agent can write {name}" for name in ("ca-public", "tasks") if not agent[name].get("readOnly")]
    for name, container in containers.items():
        if name != "valetkey":
            found += [f"{name} mounts {volume}" for volume in SIDECAR_ONLY & mounts_of(container).keys()]
            if any(reference in json.dumps(container) for reference in ("secretKeyRef", "secretRef")):
                found.append(f"{name} has variables from a Secret")
    group = flags_of(containers["valetkey"])["control-group"]
    if str(containers["agent"]["securityContext"].get("runAsGroup")) == group:
        found.append("the agent is in the control group")
    if str(containers["orchestrator"]["securityContext"].get("runAsGroup")) != group:
        found.append("the orchestrator is not in the control group")
    if not mounts_of(containers["orchestrator"])["control"].get("readOnly"):
        found.append("the orchestrator could replace the control socket")
    return found


def what_is_secret_is_in_memory(documents: Documents) -> list[str]:
    """The key's volume never touches a disk."""
    volumes = {volume["name"]: volume for volume in pod_of(documents)["spec"]["volumes"]}
    is_memory = {name: volume.get("emptyDir", {}).get("medium") == "Memory" for name, volume in volumes.items()}
    return [f"{name} is not in memory" for name in ("ca-key", "control", "tasks") if not is_memory[name]]


def paths_of_the_sidecar_are_mounted(documents: Documents) -> list[str]:
    """Each path in its flags is below the right mount."""
    container = containers_of(documents)["valetkey"]
    flags, mounts = flags_of(container), mounts_of(container)
    below = {"policy": "policy", "ca-dir": "ca-key", "ca-publish": "ca-public", "control": "control"}
    found = []
    for flag, volume in below.items():
        place = mounts[volume]["mountPath"]
        if flags[flag] != place and not flags[flag].startswith(f"{place}/"):
            found.append(f"--{flag} is not below {place}")
    if Path(flags["control"]).parent == Path(mounts["control"]["mountPath"]):
        found.append("the control socket is in a directory that everybody can write")
    if flags["listen"].rpartition(":")[0] != "127.0.0.1":
        found.append("the proxy can be reached from outside the pod")
    return found


RULES: tuple[Callable[[Documents], list[str]], ...] = (
    the_sidecar_starts_first_and_ends_last,
    nobody_is_root_and_nobody_is_the_same,
    the_pod_shares_nothing_it_need_not,
    the_agent_has_its_own_and_nothing_else,
    what_is_secret_is_in_memory,
    paths_of_the_sidecar_are_mounted,
)


def rule_complaints(documents: Documents) -> list[str]:
    """What all rules say."""
    return [complaint for rule in RULES for complaint in rule(documents)]


def breaks() -> dict[str, tuple[Callable[[dict[str, Any]], object], str]]:
    """Ways to break the pod's spec, and what has to be said of each."""

    def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
        return next(one for one in [*spec["initContainers"], *spec["containers"]] if one["name"] == name)

    def mount(spec: dict[str, Any], name: str, volume: str) -> None:
        container(spec, name)["volumeMounts"].append({"name": volume, "mountPath": f"/x/{volume}"})

    def control_in_the_open(spec: dict[str, Any]) -> None:
        arguments = container(spec, "valetkey")["args"]
        arguments[:] = [argument.replace("/private/", "/") for argument in arguments]

    return {
        "a misspelt field": (lambda s: s.update(shareProcessNamespaces=False), "shareProcessNamespaces"),
        "a wrong type": (lambda s: s.update(terminationGracePeriodSeconds="45"), "terminationGracePeriodSeconds"),
        "an ordinary init container": (lambda s: s["initContainers"][0].pop("restartPolicy"), "restartPolicy Always"),
        "no startup probe": (lambda s: s["initContainers"][0].pop("startupProbe"), "nothing waits"),
        "an agent with the sidecar's uid": (
            lambda s: container(s, "agent")["securityContext"].update(runAsUser=64888),
            "are the same user",
        ),
        "an agent as root": (lambda s: container(s, "agent")["securityContext"].pop("runAsUser"), "no user and group"),
        "an agent with a capability": (
            lambda s: container(s, "agent")["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
            "keeps capabilities",
        ),
        "an agent in the control group": (
            lambda s: container(s, "agent")["securityContext"].update(runAsGroup=64890),
            "in the control group",
        ),
        "a group for everybody": (lambda s: s["securityContext"].update(fsGroup=64890), "would hold for the agent"),
        "shared processes": (lambda s: s.update(shareProcessNamespace=True), "shareProcessNamespace is not False"),
        "an agent with the Secret": (lambda s: mount(s, "agent", "credentials"), "the agent mounts credentials"),
        "an agent with the CA key": (lambda s: mount(s, "agent", "ca-key"), "the agent mounts ca-key"),
        "an agent with the socket": (lambda s: mount(s, "agent", "control"), "the agent mounts control"),
        "an orchestrator with the Secret": (lambda s: mount(s, "orchestrator", "credentials"), "mounts credentials"),
        "a key in a variable": (
            lambda s: container(s, "agent")["env"].append(
                {"name": "K", "valueFrom": {"secretKeyRef": {"name": "valetkey-credentials", "key": "stripe"}}}
            ),
            "variables from a Secret",
        ),
        "a CA key on a disk": (
            lambda s: next(v for v in s["volumes"] if v["name"] == "ca-key").update(emptyDir={}),
            "ca-key is not in memory",
        ),
        "a socket where everybody can write": (control_in_the_open, "everybody can write"),
    }


def check_breaks(documents: Documents, version: str, tally: Tally) -> None:
    """Each break has to be noticed."""
    for name, (edit, wanted) in breaks().items():
        broken = copy.deepcopy(documents)
        edit(pod_of(broken)["spec"])
        found = schema_complaints(broken, version) or rule_complaints(broken)
        noticed = any(wanted in complaint for complaint in found)
        tally.settle(f"control: {name} is noticed", [] if noticed else [f"found {found}"])
    unknown = copy.deepcopy(documents)
    pod_of(unknown)["kind"] = "Podd"
    found = schema_complaints(unknown, version)
    tally.settle("control: an unknown kind is noticed", [] if any("podd" in c.lower() for c in found) else [f"{found}"])


def dockerfile_complaints(text: str) -> list[str]:
    """What the image is made of."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    last = max(index for index, line in enumerate(lines) if line.startswith("FROM "))
    final = lines[last:]
    found = [] if final[0] == "FROM scratch" else ["the image has more in it than it needs"]
    users = [line.split()[1] for line in final if line.startswith("USER ")]
    if users != ["64888:64888"]:
        found.append("it does not run as 64888")
    if "target-feature=+crt-static" not in text or "--locked" not in text:
        found.append("the binary is not static, or not of the locked dependencies")
    return found


def binary_complaints(binary: str, documents: Documents) -> dict[str, list[str]]:
    """What the binary says of the manifest."""
    containers = containers_of(documents)
    flags = flags_of(containers["valetkey"])
    command = [binary, "env", "--json", "--proxy", f"http://{flags['listen']}", "--ca-publish", flags["ca-publish"]]
    answer = json.loads(run(command).stdout)
    env = {variable["name"]: variable["value"] for variable in containers["agent"]["env"]}
    differ = sorted(name for name in answer.keys() | env.keys() if answer.get(name) != env.get(name))
    (policies,) = (document for document in documents if document["kind"] == "ConfigMap")
    with tempfile.TemporaryDirectory() as place:
        policy = Path(place) / "policy.toml"
        policy.write_text(policies["data"]["policy.toml"])
        checked = run([binary, "policy", "check", str(policy)])
    return {
        "the agent's variables are those of `valetkey env`": [f"{name} differs" for name in differ],
        "the policy has no mistake": [checked.stderr] if checked.returncode else [],
    }


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command and gives what it said."""
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False)


def main() -> int:
    """Checks everything."""
    tally = Tally()
    documents: Documents = list(yaml.safe_load_all((DEPLOY / "pod.yaml").read_text()))
    versions = sorted({major_minor(version) for version in all_versions()}, key=number)
    versions = [version for version in versions if number(version) >= number(OLDEST)]
    for version in versions:
        tally.settle(f"pod.yaml is valid for Kubernetes {version}, strictly", schema_complaints(documents, version))
    for rule in RULES:
        tally.settle(rule.__name__.replace("_", " "), rule(documents))
    check_breaks(documents, versions[-1], tally)
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    tally.settle("the image holds what it says", dockerfile_complaints(dockerfile))
    broken = dockerfile.replace("FROM scratch", "FROM debian")
    tally.settle("control: another base is noticed", [] if dockerfile_complaints(broken) else ["it was not"])
    binary = os.environ.get("VALETKEY_BINARY")
    if binary:
        for name, complaints in binary_complaints(binary, documents).items():
            tally.settle(name, complaints)
    else:
        tally.skip("the binary agrees", "VALETKEY_BINARY is not set")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
