#!/usr/bin/env python3
"""Rendering machine configs: bramble beside Talos' own generator and, where it is there, talhelper, in one run.

Each program makes the configs of the same cluster (one control plane, the rest workers) from keys that are there
already. The runs of all programs are interleaved; what a program cannot do is left out and said.
"""

import argparse
import os
import shutil
import subprocess

import measure

TALOS = "v1.13.9"
KUBERNETES = "v1.36.3"
# A process for each machine takes minutes with a thousand of them.
FEW = 2


def address(n):
    return f"10.0.{1 + n // 250}.{1 + n % 250}"


def mac(n):
    return f"02:00:00:00:{n // 256:02x}:{n % 256:02x}"


def site(nodes):
    text = f"""apiVersion: bramble.home.arpa/v1alpha1
kind: Cluster
metadata: {{ name: bench }}
spec:
  kubernetes: {{ distribution: talos, version: {KUBERNETES}, scheduleOnControlPlane: false }}
  network: {{ subnet: 10.0.0.0/16, gateway: 10.0.0.1, dns: [10.0.0.1], pods: 10.128.0.0/10, services: 10.96.0.0/16 }}
  board: uefi-amd64
  talos: {{ version: {TALOS} }}
  nodes:
"""
    for n in range(nodes):
        text += f"""    - name: n{n}
      role: {"control-plane" if n == 0 else "worker"}
      address: {address(n)}
      mac: "{mac(n)}"
      talos: {{ install: {{ disk: {{ serial: S{n} }} }} }}
"""
    return text


def talconfig(nodes):
    text = f"""clusterName: bench
endpoint: https://{address(0)}:6443
talosVersion: {TALOS}
kubernetesVersion: {KUBERNETES}
nodes:
"""
    for n in range(nodes):
        text += f"""  - hostname: n{n}
    ipAddress: {address(n)}
    controlPlane: {"true" if n == 0 else "false"}
    installDiskSelector: {{ serial: S{n} }}
    networkInterfaces:
      - deviceSelector: {{ hardwareAddr: "{mac(n)}" }}
        addresses: [{address(n)}/16]
"""
    return text


def contestants(tool, nodes, directory, judges, talhelper):
    """Name, command, what is done before each run, and whether a run of it is long."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SOPS_AGE_")}
    environment["SOPS_AGE_KEY_FILE"] = os.path.join(directory, "age.txt")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    with open(os.path.join(directory, "bramble.yaml"), "w") as file:
        file.write(site(nodes))
    here = {"cwd": directory, "env": environment}
    for words in (["init"], ["secrets", "talos", "create"], ["secrets", "talos", "export", "-o", "talsecret.yaml"]):
        measure.timed([tool, *words], **here)
    fresh = lambda: shutil.rmtree(os.path.join(directory, "out"), ignore_errors=True)
    nothing = lambda: None
    yield "bramble, files written anew", [tool, "render", "--plaintext", "-o", "out"], here, fresh, False
    yield "bramble, all to standard output", [tool, "render", "--plaintext"], here, nothing, False
    if judges:
        # Talos' generator makes one config a call: one process for each machine, as scripts run it.
        one = [os.path.join(judges, "talos-judge-1.13"), "gen", "--name", "bench", "--endpoint", f"https://{address(0)}:6443"]
        one += ["--secrets", "talsecret.yaml", "--k8s-version", KUBERNETES.lstrip("v"), "--install-disk", "/dev/sda", "--type"]
        loop = 'for i in $(seq 2 "$0"); do "$@" worker >/dev/null; done; "$@" controlplane >/dev/null'
        yield "Talos' generator, one process a machine", ["bash", "-c", loop, str(nodes), *one], here, nothing, nodes > 100
    if talhelper:
        with open(os.path.join(directory, "talconfig.yaml"), "w") as file:
            file.write(talconfig(nodes))
        yield "talhelper genconfig", [talhelper, "genconfig", "--offline-mode"], here, nothing, nodes > 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default=measure.TOOL, help="the bramble to measure")
    parser.add_argument("--nodes", default="1,100,1000")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--talhelper", default=shutil.which("talhelper"))
    arguments = parser.parse_args()
    tool = os.path.abspath(arguments.tool)
    if not os.access(tool, os.X_OK):
        measure.refuse(f"{tool} is not built", "cargo build --release --package bramble")
    script = os.path.join(measure.ROOT, "scripts/conformance.sh")
    judges = subprocess.run(["bash", script, "--judges-only"], stdout=subprocess.PIPE, text=True).stdout.strip()
    if not judges:
        measure.say("Talos' generator is left out: there is no Go to build it with")
    if not arguments.talhelper:
        measure.say("talhelper is left out: it is not installed")
    measure.quiet()
    results = []
    print(measure.HEADER)
    for nodes in map(int, arguments.nodes.split(",")):
        directory = os.path.join(measure.WORK, "render", str(nodes))
        all_of_them = list(contestants(tool, nodes, directory, judges, arguments.talhelper))
        seconds = {name: [] for name, *_ in all_of_them}
        for run in range(arguments.runs):
            for name, command, here, before, long in all_of_them:
                if long and run >= FEW:
                    continue
                before()
                seconds[name].append(measure.timed(command, **here)[0] * 1000)
        for name, values in seconds.items():
            found = measure.spread(values)
            results.append({"nodes": nodes, "program": name, "milliseconds": found})
            print(measure.row(f"{nodes} nodes: {name}", found, f"ms of {len(values)}"), flush=True)
    versions = {"bramble": measure.output([tool, "--version"]), "talos": TALOS}
    value = {"computer": measure.computer(), "versions": versions, "results": results}
    measure.write_json(os.path.join(measure.WORK, "render.json"), value)


if __name__ == "__main__":
    main()
