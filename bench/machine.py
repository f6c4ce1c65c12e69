"""One virtual machine, the same for both sides: QEMU with UEFI firmware, a disk overlay, a user network."""

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import measure

# As bramble-lab has them for a control plane.
MEMORY_MIB = 3072
CPUS = 2
MAC = "52:54:00:00:00:11"
POLL = 0.25


def accelerator(choice, cpu=None):
    """`kvm` or `tcg`, and the processor model. A device file is no proof that the hypervisor works: it is tried."""
    model = cpu or "host"
    if choice != "tcg":
        if os.access("/dev/kvm", os.R_OK | os.W_OK):
            process = subprocess.Popen(
                ["qemu-system-x86_64", "-machine", "q35,smm=off", "-accel", "kvm", "-cpu", model, "-smp", str(CPUS),
                 "-m", "64M", "-display", "none", "-nodefaults", "-no-user-config"],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            try:
                process.wait(3)
                said = process.stderr.read().decode(errors="replace").strip().splitlines()
                why = said[0] if said else f"QEMU ended with {process.returncode}"
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return "kvm", model
        else:
            why = "/dev/kvm cannot be opened"
        if choice == "kvm":
            measure.refuse(f"KVM does not work with -cpu {model}: {why}", "--accel tcg, or --cpu with another model")
        measure.say(f"machines are emulated: KVM does not work with -cpu {model}: {why}")
    return "tcg", cpu or "max"


def firmware(project):
    """Code and empty variables of the firmware package that the lock pins, as the lab takes them."""
    package = project.lock()["lab"][project.arch]["package"][0]
    into = os.path.join(project.directory, "firmware", package["sha256"])
    files = [os.path.join(into, name) for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")]
    if not all(map(os.path.exists, files)):
        deb = os.path.join(measure.cache(), "debs", package["sha256"] + ".deb")
        if not os.path.exists(deb):
            deb = download(package, project)
        with tempfile.TemporaryDirectory() as tree:
            subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)
            os.makedirs(into, exist_ok=True)
            for file in files:
                shutil.copyfile(os.path.join(tree, "usr/share/OVMF", os.path.basename(file)), file)
    return files + [f"{package['name']} {package['version']}"]


def download(package, project):
    """The firmware's package, which a build does not need and so does not fetch."""
    import urllib.request
    path = os.path.join(project.directory, "firmware.deb")
    with urllib.request.urlopen(f"{debian()}/{package['filename']}", timeout=60) as answer:
        data = answer.read()
    if hashlib.sha256(data).hexdigest() != package["sha256"]:
        measure.refuse(f"the mirror's {package['filename']} is not what the lock pins", "bramble lock --update")
    with open(path, "wb") as file:
        file.write(data)
    return path


def debian():
    """The Debian mirror that this computer's apt uses, else Debian's own."""
    found = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
                           capture_output=True, text=True).stdout.split()
    plain = [uri.rstrip("/") for uri in found if uri.rstrip("/").endswith("/debian")]
    return plain[0] if plain else "http://ftp.debian.org/debian"


class Access:
    """An administrator's client certificate, from the machine document in an image's identity partition."""

    def __init__(self, document, directory):
        text = document["kubernetes"]["files"]["admin.conf"]
        for key, name in [("certificate-authority-data", "ca.crt"), ("client-certificate-data", "admin.crt"),
                          ("client-key-data", "admin.key")]:
            data = base64.b64decode(re.search(key + r": *\"?([A-Za-z0-9+/=]+)", text).group(1))
            path = os.path.join(directory, name)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
        place = lambda name: os.path.join(directory, name)
        self.context = ssl.create_default_context(cafile=place("ca.crt"))
        self.context.load_cert_chain(place("admin.crt"), place("admin.key"))


class Machine:
    """A machine with its own disk overlay and its own firmware variables, below `directory`."""

    def __init__(self, directory, image, code, variables, accel, cpu, node, address, access, key):
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        self.directory, self.accel, self.cpu = directory, accel, cpu
        self.node, self.address, self.access, self.key = node, address, access, key
        self.code, self.variables = code, os.path.join(directory, "vars.fd")
        shutil.copyfile(variables, self.variables)
        self.disk = os.path.join(directory, "disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", os.path.abspath(image), self.disk],
                       check=True)
        self.process = None
        self.boots = 0

    def arguments(self):
        """As bramble-lab's, but for the disk, which is a file here, and the network, which QEMU itself makes."""
        forwards = [f"hostfwd=tcp:127.0.0.1:{self.api}-{self.address}:6443",
                    f"hostfwd=tcp:127.0.0.1:{self.ssh}-{self.address}:22"]
        network = ["user", "id=net", "net=192.168.1.0/24", "host=192.168.1.1", "dns=192.168.1.3",
                   "dhcpstart=192.168.1.200", "ipv6=off", "restrict=on", *forwards]
        return [
            "qemu-system-x86_64",
            "-name", "guest=bench",
            "-machine", "q35,smm=off,pflash0=code,pflash1=vars",
            "-accel", "tcg,thread=multi" if self.accel == "tcg" else self.accel,
            "-cpu", self.cpu,
            "-smp", str(CPUS),
            "-m", f"{MEMORY_MIB}M",
            "-rtc", "base=utc",
            "-blockdev", f"driver=file,node-name=code,filename={self.code},read-only=on",
            "-blockdev", f"driver=file,node-name=vars,filename={self.variables}",
            # Nothing of a run is kept: no flush of the guest waits for this computer's disk.
            "-blockdev", f"driver=qcow2,node-name=disk,discard=unmap,cache.no-flush=on,file.driver=file,"
                         f"file.filename={self.disk},file.cache.no-flush=on",
            "-device", "virtio-blk-pci,drive=disk,serial=bench,write-cache=on,bootindex=1",
            "-netdev", ",".join(network),
            "-device", f"virtio-net-pci,netdev=net,mac={MAC},romfile=",
            "-object", "rng-random,id=rng,filename=/dev/urandom",
            "-device", "virtio-rng-pci,rng=rng",
            "-device", "i6300esb",
            "-action", "watchdog=reset",
            "-chardev", "stdio,id=console,signal=off",
            "-serial", "chardev:console",
            "-chardev", f"socket,id=control,path={os.path.join(self.directory, 'qmp')},server=on,wait=off",
            "-mon", "chardev=control,mode=control",
            "-display", "none",
            "-nodefaults", "-no-user-config",
        ]

    def power_on(self):
        self.api, self.ssh = free_port(), free_port()
        self.boots += 1
        self.stages = {}
        log = open(os.path.join(self.directory, f"console-{self.boots}.log"), "w")
        said = open(os.path.join(self.directory, f"qemu-{self.boots}.log"), "w")
        arguments = self.arguments()
        self.began = time.monotonic()
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)

        def console(stream, began):
            with log:
                for line in stream:
                    text = line.decode(errors="replace").rstrip()
                    log.write(f"{time.monotonic() - began:9.3f}  {text}\n")
                    log.flush()

        threading.Thread(target=console, args=(self.process.stdout, self.began), daemon=True).start()

    def mark(self, stage):
        self.stages.setdefault(stage, round(time.monotonic() - self.began, 3))

    def until_ready(self, patience):
        """Seconds from power-on until the API says that the Node is Ready; the stages before it are in `stages`."""
        while "Ready" not in self.stages:
            if self.process.poll() is not None:
                raise RuntimeError(f"QEMU ended with {self.process.returncode}; see {self.directory}")
            if time.monotonic() - self.began > patience:
                raise RuntimeError(f"not Ready after {patience} s; see {self.directory}")
            try:
                self.watch(patience)
            except (OSError, http.client.HTTPException, ValueError):
                pass
            time.sleep(POLL)
        return self.stages["Ready"]

    def get(self, path, timeout):
        # Until the guest has an address a connection hangs, and a hanging one would hide the moment when it has.
        connection = http.client.HTTPSConnection("127.0.0.1", self.api, context=self.access.context, timeout=timeout)
        connection.request("GET", path)
        return connection, connection.getresponse()

    def watch(self, patience):
        """Follows the Node on one connection: asking again and again would be work for the machine that is timed."""
        connection, answer = self.get("/readyz", 10 if "api" in self.stages else 2)
        self.mark("api")
        answer.read()
        connection.close()
        if answer.status != 200:
            return
        self.mark("api ready")
        path = f"/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{self.node}&timeoutSeconds={int(patience)}"
        connection, answer = self.get(path, patience)
        try:
            while answer.status == 200:
                line = answer.readline()
                if not line:
                    return
                node = json.loads(line)["object"]
                self.mark("node")
                if ready(node):
                    self.mark("Ready")
                    self.info = node["status"]["nodeInfo"]
                    return
        finally:
            connection.close()

    def shell(self, command, timeout=600, stdout=subprocess.PIPE):
        """Runs a command on the machine, as root."""
        found = subprocess.run(
            ["ssh", "-q", "-i", self.key, "-p", str(self.ssh), "-o", "StrictHostKeyChecking=no",
             "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60",
             "root@127.0.0.1", command],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, timeout=timeout)
        if found.returncode == 255:
            raise RuntimeError(f"ssh: {found.stderr.decode(errors='replace').strip()}")
        return found.stdout

    def shell_when_up(self, command, patience):
        """As `shell`, from the moment when the machine lets one in."""
        while True:
            try:
                return self.shell(command)
            except RuntimeError:
                if self.process.poll() is not None or time.monotonic() - self.began > patience:
                    raise
            time.sleep(1)

    def shut_down(self):
        """As its power button would."""
        control = socket.socket(socket.AF_UNIX)
        control.connect(os.path.join(self.directory, "qmp"))
        stream = control.makefile("rw")
        stream.readline()
        for command in ("qmp_capabilities", "system_powerdown"):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            stream.readline()
        self.process.wait(300)
        control.close()

    def cut(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def ready(node):
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
