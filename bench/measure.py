"""What the measurements share: programs that must be there, timing, tables, and throw-away projects."""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from email.utils import formatdate

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOL = os.path.join(ROOT, "target/release/bramble")
# Git-ignored. The projects in it have secrets of their own, made for the measurement.
WORK = os.path.join(ROOT, "build/bench")


def refuse(why, hint=None):
    """Ends the run: something that it needs is missing."""
    name = os.path.basename(sys.argv[0])
    print(f"{name}: {why}" + (f"\n  try: {hint}" if hint else ""), file=sys.stderr)
    sys.exit(2)


def say(text):
    print(text, file=sys.stderr, flush=True)


def need(programs):
    """`programs`: name of a program to the Debian package that has it."""
    missing = {package for program, package in programs.items() if not shutil.which(program)}
    if missing:
        names = " ".join(sorted(missing))
        refuse(f"needs programs of the packages {names}", f"apt-get install --no-install-recommends {names}")


def need_tool():
    if not os.access(TOOL, os.X_OK):
        refuse("target/release/bramble is not built", "cargo build --release --package bramble")


def need_agent(arch):
    if not os.path.exists(os.path.join(ROOT, "target/agent", arch, "bramble-node")):
        refuse(f"the agent for {arch} is not built", f"scripts/agent.sh {arch}")


def timed(command, **more):
    """Wall seconds, and the resident MiB of the largest process among the command and its children."""
    before = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - before
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        text = said.decode(errors="replace")[-3000:]
        sys.exit(f"{' '.join(command)[:300]} failed with {process.returncode}:\n{text}")
    return seconds, usage.ru_maxrss / 1024


def spread(values):
    """Minimum, median and maximum, with the values themselves in the order of the runs."""
    rounded = [round(v, 3) for v in values]
    return {"min": min(rounded), "median": round(statistics.median(rounded), 3), "max": max(rounded), "runs": rounded}


HEADER = f"{'':52} {'min':>9} {'median':>9} {'max':>9}"


def row(name, found, unit):
    return f"{name:52} {found['min']:9.2f} {found['median']:9.2f} {found['max']:9.2f}  {unit}"


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def output(command):
    """What a command prints; its first line is enough of a version."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def computer():
    """Where the figures come from."""
    model = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    memory = next(int(l.split()[1]) // 1024 for l in open("/proc/meminfo") if l.startswith("MemTotal"))
    load = round(os.getloadavg()[0], 2)
    return {"kernel": os.uname().release, "processor": model, "cpus": os.cpu_count(), "memoryMiB": memory, "load": load}


def quiet():
    """The load before a measurement; a busy computer is named, because its figures are upper bounds at most."""
    load = round(os.getloadavg()[0], 2)
    if load > 1:
        say(f"this computer is busy (load {load}): the figures will not be those of a quiet one")
    return load


class Project:
    """A project of examples/lab-ARCH with secrets of its own below build/bench."""

    def __init__(self, name, arch, change=lambda text: text):
        self.arch = arch
        self.directory = os.path.join(WORK, name)
        self.file = os.path.join(self.directory, "bramble.yaml")
        self.out = os.path.join(self.directory, "build")
        config = os.path.join(self.directory, "config")
        self.key = os.path.join(config, "sops/age/keys.txt")
        os.makedirs(self.directory, exist_ok=True)
        with open(os.path.join(ROOT, "examples", f"lab-{arch}", "bramble.yaml")) as example:
            text = change(example.read())
        with open(self.file, "w") as file:
            file.write(text)
        # Its own key only: the measurement neither needs nor sees a key of the person who runs it.
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("SOPS_AGE_")}
        if not os.path.exists(self.key):
            for left in ("bramble.secrets.sops.yaml", ".sops.yaml"):
                if os.path.exists(os.path.join(self.directory, left)):
                    os.remove(os.path.join(self.directory, left))
            timed(self.command("init"), env=dict(self.environment, XDG_CONFIG_HOME=config))
        self.environment["SOPS_AGE_KEY_FILE"] = self.key

    def command(self, *words):
        return [TOOL, "-f", self.file, "--progress", "json", *words]

    def run(self, *words):
        return timed(self.command(*words), env=self.environment)

    def release(self):
        """Directory of the built release."""
        return os.path.join(self.out, self.arch)

    def lock(self):
        with open(os.path.join(self.directory, "bramble.lock"), "rb") as file:
            return tomllib.load(file)

    def packages(self):
        return self.lock()["packages"][self.arch]["package"]


def cache():
    """The tool's own cache."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "bramble")


# The kernel's package asks for a program that makes an initramfs, which our list leaves out. The peer gets an empty
# package instead: what it is spared, it need not do.
STAND_IN = """Package: bramble-bench-initramfs
Version: 1
Architecture: all
Maintainer: nobody <nobody@localhost>
Provides: linux-initramfs-tool, dracut, initramfs-tools
Description: stands in for a program that makes an initramfs
"""


def repository(directory, packages, stand_in=False):
    """A flat Debian repository of the very files that the lock pins, taken from the cache: the peer installs the same
    bytes, and waits for no network."""
    os.makedirs(directory, exist_ok=True)
    for left in os.listdir(directory):
        os.remove(os.path.join(directory, left))
    paragraphs = []

    def add(control, name, sha256):
        size = os.path.getsize(os.path.join(directory, name))
        paragraphs.append(f"{control}\nFilename: ./{name}\nSize: {size}\nSHA256: {sha256}\n")

    for package in packages:
        source = os.path.join(cache(), "debs", package["sha256"] + ".deb")
        if not os.path.exists(source):
            refuse(f"{package['name']} is not in the cache", "bramble fetch")
        name = f"{package['name']}_{package['version'].replace(':', '%3a')}.deb"
        target = os.path.join(directory, name)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        add(output(["dpkg-deb", "-f", source]), name, package["sha256"])
    if stand_in:
        name = "stand-in.deb"
        with tempfile.TemporaryDirectory() as tree:
            os.mkdir(os.path.join(tree, "DEBIAN"))
            with open(os.path.join(tree, "DEBIAN/control"), "w") as file:
                file.write(STAND_IN)
            # mkdtemp is for one user alone; a package's root is for all.
            os.chmod(tree, 0o755)
            output(["dpkg-deb", "--root-owner-group", "-b", tree, os.path.join(directory, name)])
        with open(os.path.join(directory, name), "rb") as file:
            add(STAND_IN.rstrip(), name, hashlib.sha256(file.read()).hexdigest())
    text = "\n".join(paragraphs).encode()
    with open(os.path.join(directory, "Packages"), "wb") as file:
        file.write(text)
    # apt and mmdebstrap choose by suite and origin, which stand here. Nobody signs it: it never left this computer.
    with open(os.path.join(directory, "Release"), "w") as file:
        file.write(f"Origin: bramble-bench\nSuite: trixie\nCodename: trixie\nDate: {formatdate(usegmt=True)}\n"
                   f"SHA256:\n {hashlib.sha256(text).hexdigest()} {len(text)} Packages\n")
    return f"deb [trusted=yes] copy://{directory} ./"
