#!/usr/bin/env python3
"""`bramble flash` beside dd and bmaptool: the same image, the same throttled device, the same verification.

usage: bench/flash.py [--mapped MB] [--size MB] [--speed MB_S] [--runs N]

Needs root, loop devices, and the cgroup I/O controller (version 1 blkio or version 2 io) to hold writes to the device at
one speed; bmaptool where it is installed; `cargo build --release -p bramble-disk --example flash_image`.

The image is a sparse file: a few large runs and many small ones, random bytes. Every tool's writing is followed by
reading the mapped ranges back past the cache and comparing SHA-256; for dd and bmaptool this script does it, since they
do not. Only writing is throttled, as with cards, which read faster. The last column is the share of the device's own
speed on the bytes that must be written: mapped bytes / speed / seconds of writing."""
import argparse, fcntl, hashlib, json, mmap, os, random, shutil, struct, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOL = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release/examples/flash_image")
V1 = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device"
BLKFLSBUF = 0x1261


class Throttle:
    """Holds writes to one device at one speed, for this process and its children."""

    def __init__(self, device, speed):
        number = os.stat(device).st_rdev
        self.name = f"{os.major(number)}:{os.minor(number)}"
        self.group = None
        if os.path.exists(V1):
            self.write(V1, f"{self.name} {speed}")
            return
        base = "/sys/fs/cgroup"
        if "io" not in open(f"{base}/cgroup.controllers").read().split():
            sys.exit("no cgroup I/O controller: the device cannot be throttled")
        self.write(f"{base}/cgroup.subtree_control", "+io")
        self.group = f"{base}/bramble-bench-{os.getpid()}"
        os.mkdir(self.group)
        self.write(f"{self.group}/io.max", f"{self.name} wbps={speed}")
        self.write(f"{self.group}/cgroup.procs", str(os.getpid()))

    @staticmethod
    def write(path, text):
        with open(path, "w") as file:
            file.write(text)

    def end(self):
        if self.group is None:
            self.write(V1, f"{self.name} 0")
            return
        self.write("/sys/fs/cgroup/cgroup.procs", str(os.getpid()))
        os.rmdir(self.group)


def make_image(path, size, mapped):
    """A sparse image; gives its ranges."""
    source = random.Random(7)
    ranges = [(0, 1 << 20), (size - (1 << 20), size)]
    with open(path, "wb") as file:
        file.truncate(size)
        at, left = 4 << 20, mapped - (2 << 20)
        while left > 0:
            length = min(left, source.choice([1, 1, 2, 16, 128, 1024, 8192]) * 4096)
            ranges.append((at, at + length))
            left -= length
            at += length + source.choice([1, 4, 64]) * 4096
            if at > size - (2 << 20):
                sys.exit("the image is too small for so much data")
        ranges.sort()
        for start, end in ranges:
            file.seek(start)
            file.write(source.randbytes(end - start))
    return ranges


def bmap(path, image, ranges, size):
    lines = "".join(f"<Range>{s // 4096}-{(e - 1) // 4096}</Range>\n" for s, e in ranges)
    blocks = sum((e - s) // 4096 for s, e in ranges)
    text = f"""<?xml version="1.0" ?><bmap version="1.3"><ImageSize> {size} </ImageSize><BlockSize> 4096 </BlockSize>
<BlocksCount> {size // 4096} </BlocksCount><MappedBlocksCount> {blocks} </MappedBlocksCount><BlockMap>{lines}</BlockMap></bmap>"""
    with open(path, "w") as file:
        file.write(text)


def same(device, image, ranges):
    """Reads the ranges back past the cache and compares; gives the seconds that took."""
    began = time.monotonic()
    handle = os.open(device, os.O_RDONLY | os.O_DIRECT)
    fcntl.ioctl(handle, BLKFLSBUF)
    buffer = mmap.mmap(-1, 4 << 20)
    with open(image, "rb") as file:
        for start, end in ranges:
            at = start
            while at < end:
                length = min(end - at, 4 << 20)
                view = memoryview(buffer)[:length]
                if os.preadv(handle, [view], at) != length:
                    sys.exit("short read")
                file.seek(at)
                # The head has bramble's record in it.
                if at >= 1 << 20 and hashlib.sha256(view).digest() != hashlib.sha256(file.read(length)).digest():
                    sys.exit(f"the device holds other bytes at {at}")
                at += length
    os.close(handle)
    return time.monotonic() - began


def run(*arguments, **more):
    done = subprocess.run(arguments, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1024, help="MB of the image")
    parser.add_argument("--mapped", type=int, default=190, help="MB of it that hold data")
    parser.add_argument("--speed", type=int, default=20, help="MB/s")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if not os.path.exists(TOOL):
        sys.exit("first: cargo build --release -p bramble-disk --example flash_image")
    size, mapped, speed = (options.size << 20), options.mapped * 10**6 // 4096 * 4096, options.speed * 10**6
    # In memory, so that nothing but the throttle is slow.
    work = tempfile.mkdtemp(dir="/dev/shm")
    image, backing = os.path.join(work, "image"), os.path.join(work, "disk")
    ranges = make_image(image, size, mapped)
    bmap(image + ".bmap", image, ranges, size)
    must = sum(e - s for s, e in ranges)
    tools = ["bramble flash", "dd"] + (["bmaptool"] if shutil.which("bmaptool") else [])
    rows = {}
    try:
        for turn in range(options.runs):
            for tool in tools:
                if tool == "dd" and turn:
                    continue
                with open(backing, "wb") as file:
                    file.truncate(size)
                device = run("losetup", "-f", "--show", backing).strip()
                throttle = Throttle(device, speed)
                try:
                    began = time.monotonic()
                    if tool == "bramble flash":
                        refused = subprocess.run([TOOL, image, device], capture_output=True, text=True).stderr
                        token = refused.split("--confirm ")[1].split('"')[0].strip()
                        began = time.monotonic()
                        said = json.loads(run(TOOL, image, device, token))
                        whole = time.monotonic() - began
                        writing = whole - said["verifying"]
                        same(device, image, ranges)
                    elif tool == "dd":
                        run("dd", f"if={image}", f"of={device}", "bs=4M", "oflag=direct", "conv=fsync")
                        writing = time.monotonic() - began
                        whole = writing + same(device, image, ranges)
                    else:
                        run("bmaptool", "copy", "--bmap", image + ".bmap", image, device)
                        writing = time.monotonic() - began
                        whole = writing + same(device, image, ranges)
                    rows.setdefault(tool, []).append((writing, whole))
                finally:
                    throttle.end()
                    run("losetup", "-d", device)
                    os.unlink(backing)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{must / 1e6:.0f} MB in {len(ranges)} ranges of an image of {size / 1e6:.0f} MB, device at {options.speed} MB/s")
    print(f"{'':16}{'runs':>5}{'writing s':>11}{'with verify s':>15}{'share of speed':>16}")
    for tool, times in rows.items():
        writing, whole = (sorted(t[i] for t in times)[len(times) // 2] for i in (0, 1))
        print(f"{tool:16}{len(times):5}{writing:11.2f}{whole:15.2f}{must / speed / writing:16.3f}")
    if "bmaptool" not in rows:
        print("bmaptool: not installed, not run")


main()
