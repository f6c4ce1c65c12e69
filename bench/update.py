#!/usr/bin/env python3
"""What an update costs: bytes on the wire and bytes written, beside two lower bounds and two other ways.

usage: bench/update.py [--arch amd64|arm64] [--debug]

Real package sets of the Debian archive as it is today, each the next of the one before:

  point     the last point release: trixie, with its kernel
  security  what came since: trixie-updates and trixie-security; the kernel of before
  kernel    the same, with the newest kernel of trixie and trixie-security
  backports the same, with the kernel of trixie-backports

The archive has no more history than that: superseded packages leave it. Kubernetes is not in these roots. Prints a table;
build/bench/update.json has everything.

Needs the agent (scripts/agent.sh ARCH) and the examples: cargo build --release --package bramble-debian --package
bramble-image --examples"""

import argparse
import json
import os
import shutil
import subprocess
import time

import measure


def main():
    parser = argparse.ArgumentParser(description="What an update costs.")
    parser.add_argument("--arch", choices=["amd64", "arm64"], default="amd64")
    parser.add_argument("--debug", action="store_true", help="take the examples of a debug build: bytes are the same")
    options = parser.parse_args()
    arch = options.arch
    examples = os.path.join(measure.ROOT, "target", "debug" if options.debug else "release", "examples")
    for example in ["resolve", "release", "update"]:
        if not os.access(os.path.join(examples, example), os.X_OK):
            measure.refuse(f"{examples}/{example} is not built",
                           "cargo build --release --package bramble-debian --package bramble-image --examples")
    measure.need_agent(arch)
    agent = os.path.join(measure.ROOT, "target/agent", arch, "bramble-node")
    work = os.path.join(measure.WORK, "update", arch)
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)

    meta = f"linux-image-{arch}"
    newest = "trixie trixie-updates trixie-security"
    builds, kernel = [], meta
    sets = [("point", "trixie", None), ("security", newest, None), ("kernel", newest, meta),
            ("backports", newest + " trixie-backports", f"{meta}/trixie-backports")]
    before, found = {}, []
    for name, suites, wanted in sets:
        kernel = wanted or kernel
        packages = resolve(examples, arch, work, name, suites, kernel)
        if name == "point":
            # The image itself, so that the next set keeps it.
            kernel = next(p for p in packages if p.startswith("linux-image-") and p != meta)
        changed = sorted(p for p, version in packages.items() if before.get(p) != version)
        build = os.path.join(work, f"build-{name}")
        environment = dict(os.environ, BRAMBLE_CACHE=os.path.join(measure.WORK, "cache"))
        if builds:
            environment["BRAMBLE_FROM"] = builds[-1]
        run([os.path.join(examples, "release"), arch, f"{work}/{name}/set.{arch}.json", agent, build], environment)
        builds.append(build)
        found.append({"set": name, "suites": suites, "kernel": kernel, "packages": len(packages),
                      "changed": changed if before else []})
        before = packages
        measure.say(f"{name}: {len(packages)} packages, {len(changed)} other than before")

    out = run([os.path.join(examples, "update"), work, *builds], dict(os.environ))
    for line, of in zip(out.splitlines(), found[1:]):
        of.update(json.loads(line))
    result = {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "computer": measure.computer(), "sets": found}
    measure.write_json(os.path.join(measure.WORK, "update.json"), result)
    table(found)


def resolve(examples, arch, work, name, suites, kernel):
    """Package to version; the list lies in work/NAME."""
    directory = os.path.join(work, name)
    os.makedirs(directory)
    environment = dict(os.environ, BRAMBLE_SUITES=suites, BRAMBLE_KERNEL=kernel)
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "bramble")
    run([os.path.join(examples, "resolve"), cache, directory], environment)
    with open(os.path.join(directory, f"set.{arch}.json")) as file:
        return {p["name"]: p["version"] for p in json.load(file)}


def run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)[:300]} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


def table(found):
    def mb(value):
        return f"{value / 1e6:9.2f}"

    print(f"{'MB':12}" + "".join(f"{of['set']:>12}" for of in found[1:]))
    rows = [
        ("packages", lambda of: f"{len(of['changed']):9}"),
        ("wire", lambda of: mb(of["report"]["from"][0]["wire"])),
        ("LB1 files", lambda of: mb(of["report"]["bounds"]["whole"])),
        ("LB2 patches", lambda of: mb(of["report"]["bounds"]["patches"])),
        ("index", lambda of: mb(of["index"])),
        ("chunks", lambda of: mb(of["chunks"])),
        ("full", lambda of: mb(of["report"]["full"])),
        ("wire / LB1", lambda of: f"{of['report']['from'][0]['wire'] / of['report']['bounds']['whole']:9.3f}"),
        ("root", lambda of: mb(of["report"]["from"][0]["root"])),
        ("tree", lambda of: mb(of["report"]["from"][0]["tree"])),
        ("boot", lambda of: mb(of["report"]["from"][0]["boot"])),
        ("blocks", lambda of: mb(of["report"]["bounds"]["blocks"])),
        ("written / b.", lambda of: f"{written(of['report']['from'][0]) / of['report']['bounds']['blocks']:9.3f}"),
        # A slot that still holds the release before the one that runs.
        ("from N-1", lambda of: mb(written(of["report"]["from"][1])) if len(of["report"]["from"]) > 1 else "        -"),
        ("% of slot", lambda of: f"{100 * written(of['report']['from'][0]) / (2 << 30):9.2f}"),
    ]
    for name, value in rows:
        print(f"{name:12}" + "".join(f"{value(of):>12}" for of in found[1:]))


def written(cost):
    return cost["root"] + cost["tree"] + cost["boot"]


if __name__ == "__main__":
    main()
