#!/usr/bin/env python3
"""A warm build of a complete bootable image, beside mmdebstrap making only the tree of the same Debian list.

usage: bench/build.py [--runs 5] [--arch amd64] [--peer-runs 1]

Needs target/release/bramble, the agent, a filled cache (`bramble fetch`) and, for the peer, root and mmdebstrap.
Prints wall seconds and peak memory as min, median and max."""
import argparse, json, os, resource, shutil, statistics, subprocess, sys, tempfile, time, tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOL = os.path.join(ROOT, "target/release/bramble")


def run(arguments, **more):
    """Wall seconds and peak resident MiB of one command, its children's largest included."""
    before = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{said.decode(errors='replace')[-2000:]}")
    return time.monotonic() - before, usage.ru_maxrss / 1024


def row(name, values, unit):
    print(f"{name:44} {min(values):9.2f} {statistics.median(values):9.2f} {max(values):9.2f}  {unit}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-runs", type=int, default=1)
    parser.add_argument("--arch", default="amd64")
    options = parser.parse_args()
    project = os.path.join(ROOT, "build", "bench", options.arch)
    os.makedirs(project, exist_ok=True)
    shutil.copy(os.path.join(ROOT, "examples", f"lab-{options.arch}", "bramble.yaml"), project)
    tool = [TOOL, "-f", os.path.join(project, "bramble.yaml"), "--progress", "json"]
    environment = dict(os.environ, SOPS_AGE_KEY_FILE=os.path.join(project, "age.key"))
    if not os.path.exists(os.path.join(project, "bramble.secrets.sops.yaml")):
        if os.path.exists(os.path.join(project, "age.key")):
            os.remove(os.path.join(project, "age.key"))
        here = dict(environment)
        here.pop("SOPS_AGE_KEY_FILE")
        here["XDG_CONFIG_HOME"] = os.path.join(project, "config")
        subprocess.run([*tool, "init"], check=True, env=here, stderr=subprocess.DEVNULL)
        shutil.copy(os.path.join(project, "config/sops/age/keys.txt"), os.path.join(project, "age.key"))
    out = os.path.join(project, "build")
    run([*tool, "build", "--arch", options.arch], env=environment)
    seconds, memory = [], []
    for _ in range(options.runs):
        shutil.rmtree(out)
        s, m = run([*tool, "build", "--arch", options.arch], env=environment)
        seconds.append(s)
        memory.append(m)
    print(f"{'':44} {'min':>9} {'median':>9} {'max':>9}")
    row(f"bramble build, warm, {options.arch} ({options.runs} runs)", seconds, "s")
    row("  peak memory", memory, "MiB")
    if options.peer_runs and shutil.which("mmdebstrap"):
        lock = tomllib.load(open(os.path.join(project, "bramble.lock"), "rb"))
        packages = lock["packages"][options.arch]["package"]
        # initramfs generators and apt are left out of our list; the peer leaves out what it can.
        names = ",".join(p["name"] for p in packages)
        mirror = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True)
        site = (mirror.stdout.split() or ["http://ftp.debian.org"])[0].rstrip("/")
        base = site if site.endswith("/debian") else site + "/debian"
        sources = [f"deb {base} trixie main", f"deb {base} trixie-updates main", f"deb {base} trixie-backports main",
                   f"deb {base}-security trixie-security main"]
        seconds, memory = [], []
        for _ in range(options.peer_runs):
            with tempfile.TemporaryDirectory() as work:
                s, m = run(["mmdebstrap", "--quiet", "--variant=essential", f"--architectures={options.arch}",
                            f"--include={names}", "--aptopt=APT::Default-Release \"trixie\"", "trixie",
                            os.path.join(work, "tree.tar"), *sources])
                seconds.append(s)
                memory.append(m)
        row(f"mmdebstrap, tree only, same list ({options.peer_runs} runs)", seconds, "s")
        row("  peak memory", memory, "MiB")
    else:
        print("mmdebstrap: not run")


main()
