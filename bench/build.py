#!/usr/bin/env python3
"""A warm build of a complete bootable image, beside mmdebstrap making only the tree of the same Debian list.

usage: bench/build.py [--runs 5] [--peer-runs N] [--arch amd64|arm64|all]

Ours: `bramble build` with every package and program in the cache and no release there: Debian, kernel, the whole
Kubernetes set, hash tree, unified kernel image, ESP, signed manifest. The peer: mmdebstrap with the very package files
that the lock pins, from a repository on this computer, so that it waits for no network; its tree as a tar archive and
nothing else of an image. The runs are interleaved. The arm64 peer runs Debian's scripts under qemu-user, if this
computer has that.

Needs target/release/bramble, the agents, a filled cache (`bramble fetch`); for the peer mmdebstrap, and root or user
namespaces. Prints a table; build/bench/build.json has the same with all runs."""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time

import measure

SLOT = 2 << 30  # bramble-api, layout.rs, ROOT_SIZE
MANIFEST = 64 << 10
FULL_PERCENT = 60


def main():
    parser = argparse.ArgumentParser(description="A warm build, beside mmdebstrap making only the tree.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-runs", type=int, help="as many as ours, unless stated; 0 leaves the peer out")
    parser.add_argument("--arch", choices=["amd64", "arm64", "all"], default="all")
    options = parser.parse_args()
    if options.peer_runs is None:
        options.peer_runs = options.runs
    before = measure.quiet()
    archs = ["amd64", "arm64"] if options.arch == "all" else [options.arch]
    measure.need_tool()
    for arch in archs:
        measure.need_agent(arch)
    result = {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "computer": measure.computer(), "loadBefore": before,
              "arch": {}}
    for arch in archs:
        result["arch"][arch] = one(arch, options)
        measure.write_json(os.path.join(measure.WORK, "build.json"), result)
    print("all runs: build/bench/build.json")


def one(arch, options):
    project = measure.Project(arch, arch)
    measure.say(f"{arch}: filling the cache")
    project.run("build", "--arch", arch)
    peer = peer_command(project)
    ours, theirs = ([], []), ([], [])
    for number in range(max(options.runs, options.peer_runs)):
        if number < options.runs:
            shutil.rmtree(project.out)
            measured(ours, project.command("build", "--arch", arch), f"{arch}: bramble build", env=project.environment)
        if number < options.peer_runs and not isinstance(peer, str):
            with tempfile.TemporaryDirectory() as work:
                tar = os.path.join(work, "tree.tar")
                measured(theirs, [word.replace("TREE", tar) for word in peer], f"{arch}: mmdebstrap")
    found = {"packages": len(project.packages()), **sizes(project)}
    print(f"\n{arch}: {found['packages']} Debian packages")
    print(measure.HEADER)
    for key, name, values in (("bramble", "bramble build, warm: the bootable image", ours),
                              ("mmdebstrap", "mmdebstrap: the tree alone", theirs)):
        if values[0]:
            found[key] = {"seconds": measure.spread(values[0]), "memoryMiB": measure.spread(values[1])}
            print(measure.row(f"{name} ({len(values[0])} runs)", found[key]["seconds"], "s"))
            print(measure.row("  peak memory of the largest process", found[key]["memoryMiB"], "MiB"))
    if isinstance(peer, str):
        found["mmdebstrap"] = f"skipped: {peer}"
        print(f"mmdebstrap: skipped: {peer}")
    print("size by part: " + ", ".join(f"{part} {size / 1e6:.1f} MB" for part, size in found["parts"].items()))
    print(f"the slot is {found['slotPercent']:.1f} % full (a build fails above {FULL_PERCENT} %): "
          f"{found['slotBytes'] / 1e6:.1f} of {SLOT / 1e6:.1f} MB")
    return found


def measured(values, command, name, **more):
    seconds, memory = measure.timed(command, **more)
    measure.say(f"{name}: {seconds:.2f} s, {memory:.0f} MiB")
    values[0].append(seconds)
    values[1].append(memory)


def sizes(project):
    """Bytes by part as the build counted them, and how much of a root slot image, hash tree and manifest take."""
    release = project.release()
    with open(os.path.join(release, "release.json")) as file:
        parts = dict(json.load(file)["sizes"])
    used = os.path.getsize(os.path.join(release, "root.img")) + MANIFEST
    return {"parts": parts, "slotBytes": used, "slotPercent": round(100 * used / SLOT, 2)}


def peer_command(project):
    """mmdebstrap's command line, with TREE where the archive goes; or why there is none."""
    foreign = project.arch != measure.output(["dpkg", "--print-architecture"])
    programs = ("mmdebstrap", "dpkg-deb", *(["arch-test"] if foreign else []))
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        return f"{', '.join(missing)} is not installed"
    if foreign and not emulated(project.arch):
        return (f"this computer does not run {project.arch} programs; "
                "try: apt-get install qemu-user-static binfmt-support")
    packages = project.packages()
    local = measure.repository(os.path.join(project.directory, "repository"), packages, stand_in=True)
    names = ",".join([p["name"] for p in packages] + ["bramble-bench-initramfs"])
    return ["mmdebstrap", "--quiet", "--variant=essential", "--format=tar", f"--architectures={project.arch}",
            f"--include={names}", "--aptopt=APT::Sandbox::User \"root\"", "--aptopt=APT::Install-Recommends \"false\"",
            "trixie", "TREE", local]


def emulated(arch):
    """Whether the kernel hands programs of another architecture to an emulator that a chroot need not hold."""
    name = {"arm64": "aarch64", "amd64": "x86_64"}[arch]
    try:
        with open(f"/proc/sys/fs/binfmt_misc/qemu-{name}") as file:
            text = file.read()
    except OSError:
        return False
    # F: the kernel keeps the emulator open, so that it is found inside the tree too.
    return text.startswith("enabled") and "F" in text.split("flags:")[1].split("\n")[0]


if __name__ == "__main__":
    main()
