"""The peer of bench/lab.py: the same Kubernetes set on a plain Debian, installed by Debian's own maintainer scripts.

Also a program, for the part that must own files of all users:
    plain.py disk TREE.tar ROOT RENDERED.tar IMAGE BYTES"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid

import measure

# Beside what the lock pins, from the same Debian: what a Debian machine has to make its initrd and to update itself.
OWN = ["apt", "initramfs-tools", "busybox", "zstd"]
PINS = "Package: *\nPin: release o=bramble-bench\nPin-Priority: 1001\n"

# Debian switches on what it installs; these two it leaves to the owner, and the network of both sides is theirs.
ENABLE = "systemd-networkd.service systemd-resolved.service"

# What a release has for Kubernetes beside Debian's packages.
KUBERNETES = re.compile(r"/opt/cni/|/usr/bin/|/usr/lib/bramble/|/usr/lib/cni/|/usr/lib/systemd/system/"
                        r"|/usr/lib/(modules-load|sysctl|tmpfiles)\.d/bramble-kubernetes\.conf$"
                        r"|/usr/lib/systemd/journald\.conf\.d/50-bramble\.conf$")
AGENT = re.compile(r"/bramble-node$|/bramble-agent\.service$")

# bramble-api, names.rs, PERSISTENT: the directories that Kubernetes' programs expect, with their modes. Empty here.
DIRECTORIES = {"/var/lib/containerd": 0o711, "/var/lib/kubelet": 0o700, "/var/lib/etcd": 0o700, "/var/lib/kine": 0o700,
               "/var/lib/cni": 0o755, "/var/log/pods": 0o755, "/var/log/containers": 0o755,
               "/var/log/kubernetes": 0o700, "/var/log/journal": 0o755}

ESP_START, ESP_SIZE = 4 << 20, 512 << 20
# As Bramble OS', without `systemd.gpt_auto=0` and `systemd.getty_auto=no`, which a plain Debian does not say.
CMDLINE = "ro quiet panic=10 console=tty0 console=ttyS0,115200n8"


def make_tree(project, mirror, directory):
    """The tree as a tar archive, and how its packages differ from the lock's: made once for the same lists."""
    packages = project.packages()
    names = [p["name"] for p in packages] + OWN
    key = hashlib.sha256(json.dumps([names, [p["sha256"] for p in packages], ENABLE, PINS, mirror, 1]).encode())
    tree = os.path.join(directory, f"tree-{key.hexdigest()[:16]}.tar")
    if not os.path.exists(tree):
        for left in os.listdir(directory):
            if left.startswith("tree-"):
                os.remove(os.path.join(directory, left))
        local = measure.repository(os.path.join(directory, "repository"), packages)
        pins = os.path.join(directory, "pins")
        with open(pins, "w") as file:
            file.write(PINS)
        security = re.sub(r"/debian$", "/debian-security", mirror)
        sources = [local] + [f"deb {site} {suite} main" for site, suite in [
            (mirror, "trixie"), (mirror, "trixie-updates"), (security, "trixie-security")]]
        measure.say("mmdebstrap: a plain Debian of the same packages")
        seconds, _ = measure.timed(
            ["mmdebstrap", "--quiet", "--variant=apt", "--format=tar", f"--architectures={project.arch}",
             "--include=" + ",".join(names), "--aptopt=APT::Sandbox::User \"root\"",
             "--aptopt=APT::Install-Recommends \"false\"",
             f"--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\"; cp '{pins}' \"$1/etc/apt/preferences.d/bench\"",
             f"--customize-hook=chroot \"$1\" systemctl enable {ENABLE}",
             "--customize-hook=rm \"$1/etc/apt/preferences.d/bench\"",
             "trixie", tree + ".new", *sources])
        os.rename(tree + ".new", tree)
        measure.say(f"mmdebstrap: {seconds:.1f} s")
    with tarfile.open(tree) as archive:
        status = archive.extractfile("./var/lib/dpkg/status").read().decode()
    installed = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.*)$", paragraph, re.M))
        if fields.get("Status") == "install ok installed":
            installed[fields["Package"]] = fields["Version"]
    pinned = {p["name"]: p["version"] for p in packages}
    return tree, {
        "packages": len(installed),
        "asPinned": sum(installed.get(name) == version for name, version in pinned.items()),
        "pinned": len(pinned),
        "otherVersion": {n: [v, installed[n]] for n, v in pinned.items() if installed.get(n, v) != v},
        "missing": [n for n in pinned if n not in installed],
        "more": sorted(set(installed) - set(pinned)),
    }


def owner_prefix():
    """What runs a program as somebody who may give files to any user."""
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def make_disk(tree, root, rendered, image, size):
    """A disk image of `size` bytes: the tree, with Kubernetes as Bramble's release `root` has it and /etc as a booted
    node had it."""
    program = [sys.executable, os.path.abspath(__file__), "disk", tree, root, rendered, image, str(size)]
    subprocess.run([*owner_prefix(), *program], check=True)


def kubernetes(root):
    """Files of a release for Kubernetes: those that no Debian package brought, without the agent."""
    owned = set()
    info = os.path.join(root, "usr/lib/dpkg-db/info")
    for name in os.listdir(info):
        if name.endswith(".list"):
            with open(os.path.join(info, name)) as file:
                owned.update(canonical(line.rstrip("\n")) for line in file)
    found = []
    for top in ("usr", "opt"):
        for directory, directories, files in os.walk(os.path.join(root, top)):
            for name in files + [d for d in directories if os.path.islink(os.path.join(directory, d))]:
                full = os.path.join(directory, name)
                path = full[len(root.rstrip("/")):]
                if path in owned or not KUBERNETES.match(path) or AGENT.search(path):
                    continue
                if not (os.path.islink(full) and os.readlink(full).startswith("/etc/alternatives/")):
                    found.append(path)
    return sorted(found)


def canonical(path):
    """Debian's lists may still name a file by its place before the merged /usr."""
    return re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", path)


def disk(tree, root, rendered, image, size):
    work = tempfile.mkdtemp(dir=os.path.dirname(image))
    try:
        top = os.path.join(work, "tree")
        os.mkdir(top)
        subprocess.run(["tar", "-C", top, "--xattrs", "--numeric-owner", "-xpf", tree], check=True)
        for path in kubernetes(root):
            target = top + path
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.lexists(target):
                os.remove(target)
            shutil.copy2(root + path, target, follow_symlinks=False)
            if not os.path.islink(target):
                os.chown(target, 0, 0)
        # Over Debian's own: the links of masked units replace nothing that is needed, directories stay.
        subprocess.run(["tar", "-C", top, "--numeric-owner", "--unlink-first", "-xpf", rendered], check=True)
        sources = os.path.join(top, "etc/apt/sources.list")
        with open(sources) as file:
            kept = [line for line in file if " copy:" not in line]
        with open(sources, "w") as file:
            file.writelines(kept)
        for path, mode in DIRECTORIES.items():
            os.makedirs(top + path, exist_ok=True)
            os.chmod(top + path, mode)
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, "bramble bench plain"))
        with open(os.path.join(top, "etc/fstab"), "w") as file:
            file.write(f"UUID={name} / ext4 errors=remount-ro 0 1\n")
        esp = os.path.join(work, "esp.img")
        make_esp(top, esp, name)
        with open(image, "wb") as file:
            file.truncate(size)
        start = ESP_START + ESP_SIZE
        table = (f"label: gpt\nfirst-lba: 2048\nstart={ESP_START // 512}, size={ESP_SIZE // 512}, type=uefi\n"
                 f"start={start // 512}, type=linux\n")
        subprocess.run(["sfdisk", "-q", image], input=table.encode(), check=True)
        subprocess.run(["dd", f"if={esp}", f"of={image}", "bs=4M", f"seek={ESP_START >> 22}", "conv=notrunc,sparse",
                        "status=none"], check=True)
        # The whole disk from the start, inode tables written: the best a plain image can have, which else grows now.
        blocks = (size - start - (1 << 20)) // 4096
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-U", name, "-d", top,
                        "-E", f"offset={start},lazy_itable_init=0,lazy_journal_init=0", image, str(blocks)], check=True)
    finally:
        subprocess.run(["rm", "-rf", work], check=False)


def make_esp(top, esp, root_uuid):
    boot = os.path.join(top, "boot")
    kernel = [n for n in os.listdir(boot) if n.startswith("vmlinuz-")]
    initrd = [n for n in os.listdir(boot) if n.startswith("initrd.img-")]
    if len(kernel) != 1 or len(initrd) != 1:
        sys.exit(f"plain.py: one kernel and one initrd were expected, found {kernel} and {initrd}")
    with open(esp, "wb") as file:
        file.truncate(ESP_SIZE)
    subprocess.run(["mkfs.vfat", "-F", "32", "-n", "ESP", esp], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries"], check=True)
    entry = (f"title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions root=UUID={root_uuid} {CMDLINE}\n")
    with tempfile.TemporaryDirectory() as texts:
        for name, text in [("loader.conf", "timeout 0\neditor no\n"), ("debian.conf", entry)]:
            with open(os.path.join(texts, name), "w") as file:
                file.write(text)
        for source, target in [
            (os.path.join(top, "usr/lib/systemd/boot/efi/systemd-bootx64.efi"), "/EFI/BOOT/BOOTX64.EFI"),
            (os.path.join(texts, "loader.conf"), "/loader/loader.conf"),
            (os.path.join(texts, "debian.conf"), "/loader/entries/debian.conf"),
            (os.path.join(boot, kernel[0]), "/vmlinuz"),
            (os.path.join(boot, initrd[0]), "/initrd.img"),
        ]:
            subprocess.run(["mcopy", "-i", esp, source, "::" + target], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] != ["disk"] or len(sys.argv) != 7:
        sys.exit(__doc__)
    disk(*sys.argv[2:6], int(sys.argv[6]))
