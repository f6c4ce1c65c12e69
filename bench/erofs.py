#!/usr/bin/env python3
"""Our EROFS writer beside mkfs.erofs: the same tree, the same parameters, interleaved runs.

usage: bench/erofs.py [--runs 5] [--tree DIRECTORY]

Without a tree it takes the root of a release (the project of bench/build.py for amd64). Both write uncompressed, in
blocks of 4 KiB, no file's data in its inode, no extended attributes. Then fsck.erofs judges our image, the kernel mounts
it (root needed), and every file is compared with the tree: contents, type, mode, owner, time, links, device numbers.
Prints a table; build/bench/erofs.json has the same with all runs.

Needs the example: cargo build --release --package bramble-erofs --example mkerofs"""

import argparse
import hashlib
import os
import stat
import subprocess
import sys
import time

import measure

WRITER = os.path.join(measure.ROOT, "target/release/examples/mkerofs")


def main():
    parser = argparse.ArgumentParser(description="Our EROFS writer beside mkfs.erofs.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tree", help="a directory; else the root of a release")
    options = parser.parse_args()
    measure.need({"mkfs.erofs": "erofs-utils", "fsck.erofs": "erofs-utils"})
    if not os.access(WRITER, os.X_OK):
        measure.refuse("target/release/examples/mkerofs is not built",
                       "cargo build --release --package bramble-erofs --example mkerofs")
    before = measure.quiet()
    directory = os.path.join(measure.WORK, "erofs")
    os.makedirs(directory, exist_ok=True)
    tree = options.tree or release_tree(directory)
    ours, theirs = os.path.join(directory, "ours.img"), os.path.join(directory, "mkfs.img")
    commands = {
        "bramble-erofs": [WRITER, ours, tree],
        "mkfs.erofs": ["mkfs.erofs", "-Enoinline_data", "-x-1", "--preserve-mtime", "--quiet", theirs, tree],
    }
    found = {name: ([], []) for name in commands}
    # The first round fills the page cache and does not count.
    for number in range(options.runs + 1):
        for name in list(commands) if number % 2 else list(commands)[::-1]:
            image = next(i for i in (ours, theirs) if i in commands[name])
            if os.path.exists(image):
                os.remove(image)
            seconds, memory = measure.timed(commands[name])
            if number:
                found[name][0].append(seconds)
                found[name][1].append(memory)
    files, size = weigh(tree)
    result = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "computer": measure.computer(), "loadBefore": before,
        "mkfs": version(),
        "tree": {"entries": files, "bytes": size},
        "images": {"bramble-erofs": os.path.getsize(ours), "mkfs.erofs": os.path.getsize(theirs)},
        "seconds": {name: measure.spread(f[0]) for name, f in found.items()},
        "memoryMiB": {name: measure.spread(f[1]) for name, f in found.items()},
    }
    print(f"{files} entries, {size / 1e6:.1f} MB; {result['mkfs']}; {options.runs} interleaved runs")
    print(measure.HEADER)
    for name in commands:
        print(measure.row(name, result["seconds"][name], "s"))
        print(measure.row("  peak memory", result["memoryMiB"][name], "MiB"))
        print(f"  image {result['images'][name] / 1e6:.1f} MB")
    medians = [result["seconds"][name]["median"] for name in commands]
    result["ratio"] = round(medians[0] / medians[1], 3)
    print(f"bramble-erofs / mkfs.erofs, medians: {result['ratio']:.2f}")
    result["fsck"], result["mounted"] = fsck(ours), mounted(ours, tree, directory)
    print(f"fsck.erofs: {result['fsck']}")
    print(f"mounted by the kernel: {result['mounted']}")
    measure.write_json(os.path.join(measure.WORK, "erofs.json"), result)
    os.remove(ours)
    os.remove(theirs)
    if result["fsck"] != "clean" or result["mounted"].startswith("DIFFERENT"):
        sys.exit(1)


def release_tree(directory):
    """The root of a release, as a directory on this computer's file system."""
    measure.need_tool()
    measure.need_agent("amd64")
    project = measure.Project("amd64", "amd64")
    project.run("build", "--arch", "amd64")
    image = os.path.join(project.release(), "root.img")
    tree = os.path.join(directory, "tree")
    stamp = os.path.join(directory, "tree.made-from")
    key = f"{os.path.getsize(image)} {os.path.getmtime(image)}"
    if not (os.path.exists(stamp) and open(stamp).read() == key):
        subprocess.run(["rm", "-rf", tree], check=True)
        measure.say("extracting the root of a release")
        # Owners can be given by root alone; without, the tree is this user's, on both sides the same.
        owners = [] if os.geteuid() == 0 else ["--no-preserve-owner"]
        measure.timed(["fsck.erofs", f"--extract={tree}", *owners, image])
        with open(stamp, "w") as file:
            file.write(key)
    return tree


def version():
    # Old ones know no such option, and say who they are all the same.
    found = subprocess.run(["mkfs.erofs", "--version"], capture_output=True, text=True)
    return (found.stdout.splitlines() or ["mkfs.erofs"])[0]


def walk(top):
    yield ""
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            yield os.path.relpath(os.path.join(directory, name), top)


def weigh(tree):
    count = size = 0
    seen = set()
    for path in walk(tree):
        info = os.lstat(os.path.join(tree, path))
        count += 1
        if stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) not in seen:
            seen.add((info.st_dev, info.st_ino))
            size += info.st_size
    return count, size


def fsck(image):
    found = subprocess.run(["fsck.erofs", image], capture_output=True, text=True)
    said = (found.stdout + found.stderr).strip()
    # Some versions name an error and still succeed.
    clean = found.returncode == 0 and "<E>" not in said and "<W>" not in said
    return "clean" if clean else f"{found.returncode}: {said[-500:]}"


def mounted(image, tree, directory):
    """What the kernel reads, beside the tree."""
    if os.geteuid() != 0:
        return "skipped: mounting needs root"
    point = os.path.join(directory, "mount")
    os.makedirs(point, exist_ok=True)
    found = subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", image, point], capture_output=True, text=True)
    if found.returncode != 0:
        return f"skipped: {found.stderr.strip()}"
    try:
        differences, count = compare(tree, point)
    finally:
        subprocess.run(["umount", point], check=True)
    if differences:
        return f"DIFFERENT: {len(differences)} of {count}: " + "; ".join(differences[:5])
    return f"{count} entries equal: contents, type, mode, owner, time, links, device numbers"


def describe(top):
    """Every path with all that must be equal."""
    found, first = {}, {}
    for path in sorted(walk(top)):
        full = os.path.join(top, path)
        info = os.lstat(full)
        kind = stat.S_IFMT(info.st_mode)
        content = None
        if kind == stat.S_IFLNK:
            content = os.readlink(full)
        elif kind == stat.S_IFREG:
            with open(full, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        elif kind in (stat.S_IFBLK, stat.S_IFCHR):
            content = info.st_rdev
        links = first.setdefault((info.st_dev, info.st_ino), path) if kind != stat.S_IFDIR else None
        found[path] = (info.st_mode, info.st_uid, info.st_gid, int(info.st_mtime), content, links, info.st_nlink)
    return found


def compare(tree, point):
    left, right = describe(tree), describe(point)
    words = ("mode", "owner", "group", "time", "contents", "links", "link count")
    differences = [f"only in the {side}: {path}" for side, here, there in
                   (("tree", left, right), ("image", right, left)) for path in here if path not in there]
    for path in left.keys() & right.keys():
        kinds = [word for word, a, b in zip(words, left[path], right[path]) if a != b]
        if kinds:
            differences.append(f"{path or '.'}: {', '.join(kinds)}")
    return differences, len(left)


if __name__ == "__main__":
    main()
