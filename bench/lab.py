#!/usr/bin/env python3
"""Power-on to Ready: a Bramble image beside the same Kubernetes set on a plain Debian, in the same virtual machine.

usage: bench/lab.py [--runs 5] [--boots first|second] [--accel auto|kvm|tcg] [--cpu MODEL] [--analyze] [--only SIDE]

Both sides: QEMU q35 with the firmware that the lock pins, the same processor, memory, devices and address; a fresh
overlay of the image and fresh firmware variables for each run; from starting QEMU until the API says that the Node
is Ready. The runs are interleaved. The plain side is made here by mmdebstrap from the packages that the lock pins, with
Debian's own maintainer scripts, initramfs-tools' initrd, a writable ext4 and systemd-boot without a menu, and
Kubernetes' programs, units and configuration as the Bramble side has them. See bench/README.md.

Needs target/release/bramble, the agent, a filled cache (`bramble fetch`), and for the plain side root, or user
namespaces for mmdebstrap. Prints a table; build/bench/lab.json has the same with all runs."""

import argparse
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import time

import machine
import measure
import plain

NODE, ADDRESS = "n1", "192.168.1.11"
STAGES = ["api", "api ready", "node", "Ready"]

# What `--analyze` asks a machine once it is up, and the file it goes to.
QUESTIONS = {
    "time": "systemctl is-system-running --wait; systemd-analyze time",
    "blame": "systemd-analyze blame --no-pager | head -n 60",
    "chain": "systemd-analyze critical-chain --no-pager kubelet.service kube-apiserver.service multi-user.target",
    "journal": "journalctl -b -o short-monotonic --no-pager",
    "failed": "systemctl --failed --no-legend --no-pager",
    "kernel": "dmesg",
}


def main():
    parser = argparse.ArgumentParser(description="Power-on to Ready, beside a plain Debian.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--boots", choices=["first", "second"], default="first")
    parser.add_argument("--accel", choices=["auto", "kvm", "tcg"], default="auto")
    parser.add_argument("--cpu", help="processor model instead of the lab's (host with KVM, max without)")
    parser.add_argument("--patience", type=int, default=1800, help="seconds after which a run has failed")
    parser.add_argument("--analyze", action="store_true", help="keep what systemd says of each boot, and its journal")
    parser.add_argument("--only", choices=["bramble", "plain"], help="one side alone, to look at it")
    options = parser.parse_args()
    measure.need({
        "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "mmdebstrap": "mmdebstrap",
        "mcopy": "mtools", "mkfs.vfat": "dosfstools", "sfdisk": "fdisk", "mke2fs": "e2fsprogs", "fsck.erofs": "erofs-utils",
        "ssh": "openssh-client", "ssh-keygen": "openssh-client", "dpkg-deb": "dpkg", "apt-get": "apt",
    })
    measure.need_tool()
    measure.need_agent("amd64")
    before = measure.quiet()
    accel, cpu = machine.accelerator(options.accel, options.cpu)
    project, key = make_project()
    site = Site(project, key, accel, cpu, options)
    images = {"bramble": site.bramble_image()}
    if options.only != "bramble":
        images["plain"], packages = site.plain_image(images["bramble"])
    else:
        packages = None
    if options.only == "plain":
        del images["bramble"]
    runs = {side: [] for side in images}
    for number in range(1, options.runs + 1):
        # Each side goes first in turn, so that none has the warmer computer.
        sides = list(images) if number % 2 else list(images)[::-1]
        for side in sides:
            runs[side].append(site.boot(side, images[side], number))
    report(site, options, runs, packages, before)


def make_project():
    directory = os.path.join(measure.WORK, "lab")
    os.makedirs(directory, exist_ok=True)
    key = os.path.join(directory, "ssh")
    if not os.path.exists(key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", key], check=True)
    with open(key + ".pub") as file:
        public = file.read().strip()

    def change(text):
        # A way in to look, for both sides; and the name server that QEMU's network has.
        text = text.replace("  os:\n", f"  os:\n    ssh: {{ authorizedKeys: [\"{public}\"] }}\n", 1)
        return text.replace("dns: [192.168.1.1]", "dns: [192.168.1.3]")

    return measure.Project("lab", "amd64", change), key


def partition(image, name):
    """Start and length of a GPT partition (UEFI specification 2.10, 5.3)."""
    with open(image, "rb") as file:
        file.seek(512)
        header = file.read(92)
        first, count, size = struct.unpack_from("<QII", header, 72)
        file.seek(first * 512)
        for _ in range(count):
            entry = file.read(size)
            start, last = struct.unpack_from("<QQ", entry, 32)
            if entry[56:128].decode("utf-16-le").rstrip("\0") == name:
                return start * 512, (last - start + 1) * 512
    raise RuntimeError(f"{image} has no partition {name}")


def document(image):
    """The machine document of a disk image that was not yet booted (bramble-api, document.rs)."""
    start, _ = partition(image, "bramble-identity")
    with open(image, "rb") as file:
        file.seek(start)
        header = file.read(4096)
        if header[:16] != b"bramble-identity":
            raise RuntimeError(f"{image} holds no machine document")
        length = struct.unpack_from("<Q", header, 24)[0]
        return json.loads(file.read(length))


class Site:
    def __init__(self, project, key, accel, cpu, options):
        self.project, self.key, self.accel, self.cpu, self.options = project, key, accel, cpu, options

    def bramble_image(self):
        measure.say("bramble build")
        self.project.run("build", "--node", NODE)
        image = os.path.join(self.project.out, f"{NODE}.img")
        self.document = document(image)
        self.access = machine.Access(self.document, self.project.directory)
        self.code, self.variables, self.firmware = machine.firmware(self.project)
        self.size = os.path.getsize(image)
        return image

    def machine(self, name, image):
        return machine.Machine(os.path.join(self.project.directory, name), image, self.code, self.variables, self.accel,
                               self.cpu, NODE, ADDRESS, self.access, self.key)

    def plain_image(self, bramble):
        directory = os.path.join(self.project.directory, "plain")
        os.makedirs(directory, exist_ok=True)
        tree, packages = plain.make_tree(self.project, machine.debian(), directory)
        with open(os.path.join(self.project.release(), "release.json"), "rb") as file:
            inputs = file.read()
        parts = [json.dumps(self.document, sort_keys=True).encode(), inputs, tree.encode()]
        with open(plain.__file__, "rb") as file:
            parts.append(file.read())
        key = hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()[:16]
        image = os.path.join(directory, f"disk-{key}.img")
        if not os.path.exists(image):
            for left in os.listdir(directory):
                if left.startswith(("disk-", "rendered-")) or left == "root":
                    subprocess.run(["rm", "-rf", os.path.join(directory, left)], check=True)
            root = os.path.join(directory, "root")
            subprocess.run(["fsck.erofs", f"--extract={root}", "--no-preserve-owner", "--overwrite",
                            os.path.join(self.project.release(), "root.img")], check=True, stdout=subprocess.DEVNULL)
            rendered = os.path.join(directory, "rendered-etc.tar")
            self.take_etc(bramble, root, rendered)
            measure.say("the plain disk")
            plain.make_disk(tree, root, rendered, image + ".new", self.size)
            os.rename(image + ".new", image)
            subprocess.run(["rm", "-rf", root], check=True)
        return image, packages

    def take_etc(self, image, root, rendered):
        """What pid 1 rendered: /etc of a booted node without what the release's own /etc has."""
        measure.say("a boot of the Bramble image, to take its rendered /etc")
        node = self.machine("render", image)
        node.power_on()
        try:
            whole = node.shell_when_up("tar -C / --numeric-owner -cf - etc", self.options.patience)
        finally:
            node.cut()
        with tarfile.open(fileobj=io.BytesIO(whole)) as source, tarfile.open(rendered, "w") as target:
            os.chmod(rendered, 0o600)
            for member in source:
                path = os.path.join(root, member.name)
                if member.isfile():
                    data = source.extractfile(member).read()
                    if os.path.isfile(path) and not os.path.islink(path) and open(path, "rb").read() == data:
                        continue
                    # The release's name is not this system's.
                    if member.name != "etc/bramble-release":
                        target.addfile(member, io.BytesIO(data))
                elif member.issym():
                    if not (os.path.islink(path) and os.readlink(path) == member.linkname):
                        target.addfile(member)

    def boot(self, side, image, number):
        node = self.machine(f"{side}-{number}", image)
        node.power_on()
        try:
            node.until_ready(self.options.patience)
            if self.options.boots == "second":
                node.shell("systemctl is-system-running --wait || true")
                node.shut_down()
                node.power_on()
                node.until_ready(self.options.patience)
            found = {"seconds": node.stages["Ready"], "stages": node.stages, "info": node.info}
            measure.say(f"{side} {number}: " + ", ".join(f"{k} {v:.1f} s" for k, v in node.stages.items()))
            if self.options.analyze:
                found["analyze"] = self.analyze(node)
        finally:
            node.cut()
        os.remove(node.disk)
        return found

    def analyze(self, node):
        for name, question in QUESTIONS.items():
            with open(os.path.join(node.directory, f"{name}.txt"), "wb") as file:
                file.write(node.shell(question))
        return node.directory


def report(site, options, runs, packages, before):
    def stage(side, name):
        values = [run["stages"][name] for run in runs[side] if name in run["stages"]]
        return measure.spread(values) if values else None

    result = {
        "what": f"power-on to Ready, {options.boots} boot",
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "computer": measure.computer(), "loadBefore": before,
        "qemu": measure.output(["qemu-system-x86_64", "--version"]).splitlines()[0],
        "accel": site.accel, "cpu": site.cpu, "cpus": machine.CPUS, "memoryMiB": machine.MEMORY_MIB,
        "firmware": site.firmware, "diskBytes": site.size,
        "sides": {side: {"guest": found[0]["info"], "stages": {s: stage(side, s) for s in STAGES}, "runs": found}
                  for side, found in runs.items()},
        "plainPackages": packages,
    }
    print(f"{result['what']}, {options.runs} interleaved runs; {result['qemu']}, {site.accel}, -cpu {site.cpu}, "
          f"{machine.CPUS} processors, {machine.MEMORY_MIB} MiB, {site.firmware}")
    for side, found in result["sides"].items():
        info = found["guest"]
        print(f"{side}: kernel {info['kernelVersion']}, {info['osImage']}, kubelet {info['kubeletVersion']}, "
              f"{info['containerRuntimeVersion']}")
    if packages:
        print(f"plain: {packages['asPinned']} of {packages['pinned']} packages as the lock pins them, "
              f"{len(packages['more'])} more ({', '.join(packages['more'])})")
        for name, (pinned, found) in packages["otherVersion"].items():
            print(f"  other version: {name} {found} instead of {pinned}")
        if packages["missing"]:
            print(f"  missing: {', '.join(packages['missing'])}")
    print(measure.HEADER)
    for side in runs:
        for name in STAGES:
            spread = stage(side, name)
            if spread:
                print(measure.row(f"{side}: {name}", spread, "s"))
    if len(runs) == 2:
        medians = {side: stage(side, "Ready")["median"] for side in runs}
        result["ratio"] = round(medians["bramble"] / medians["plain"], 3)
        print(f"bramble / plain, medians of Ready: {result['ratio']:.2f}")
    path = os.path.join(measure.WORK, "lab.json")
    measure.write_json(path, result)
    print(f"all runs: {os.path.relpath(path, measure.ROOT)}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"lab.py: {error}")
