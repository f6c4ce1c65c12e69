#!/usr/bin/env python3
"""Makes the table of k3s' own flags for one release, from k3s' source.

usage: flags.py REPOSITORY COMMIT RELEASE OUT
  REPOSITORY  a clone of k3s (a git directory)
  COMMIT      the commit of the release, 40 digits
  RELEASE     what it is called: v1.36.1+k3s1
  OUT         the table: dist/k3s/flags-1.36.tsv

The table is data: one flag a line, `command name kind line file`, tab-separated, for the commands `server` and `agent`;
aliases have lines of their own. Its head names repository, release and commit. Nothing of k3s is built or run: the flags
are read from the declarations of `pkg/cli/cmds/*.go`, which are composite literals and lists of them. What this cannot
read it refuses, so that a new way of writing them is noticed.
"""

import re
import subprocess
import sys

DIRECTORY = "pkg/cli/cmds"
# Files for other systems than the machines'.
SKIP = re.compile(r"(_windows|_default|_test)\.go$")
LISTS = {"server": ("server.go", re.compile(r"^var ServerFlags = \[\]cli\.Flag\{", re.M)),
         "agent": ("agent.go", re.compile(r"^\t\tFlags: \[\]cli\.Flag\{", re.M))}
LITERAL = re.compile(r"&?cli\.(\w+)Flag\{")
NAME = re.compile(r'^\s*Name:\s*"([^"]+)"', re.M)
ALIASES = re.compile(r"^\s*Aliases:\s*\[\]string\{([^}]*)\}", re.M)
REFERENCE = re.compile(r"^&?(\w+)$")


def git(repository, *arguments):
    return subprocess.run(["git", "-C", repository, *arguments], check=True, capture_output=True, text=True).stdout


def end_of_block(text, start):
    """Position after the brace that closes the one at `start`; strings and comments are passed over."""
    depth, at = 0, start
    while at < len(text):
        char = text[at]
        if char in "\"`":
            at += 1
            while text[at] != char:
                at += 2 if char == '"' and text[at] == "\\" else 1
        elif text.startswith("//", at):
            at = text.index("\n", at)
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    sys.exit("flags.py: a brace is never closed")


class Flag:
    def __init__(self, kind, body, file, line):
        names = NAME.findall(body)
        if len(names) != 1:
            sys.exit(f"flags.py: {file}:{line}: a flag with {len(names)} names")
        # cli v1 wrote aliases into the name.
        self.names = [n.strip() for n in names[0].split(",")]
        for aliases in ALIASES.findall(body):
            self.names += re.findall(r'"([^"]+)"', aliases)
        self.kind, self.file, self.line = kind, file, line


def literal(text, match, file):
    brace = text.index("{", match.start())
    end = end_of_block(text, brace)
    line = text.count("\n", 0, match.start()) + 1
    # The place of its name is what a reader looks for.
    body = text[brace:end]
    found = NAME.search(body)
    if found:
        line += body.count("\n", 0, found.start(1))
    return Flag(match.group(1), body, file, line), end


def main():
    repository, commit, release, out = sys.argv[1:]
    if git(repository, "rev-parse", commit + "^{commit}").strip() != commit:
        sys.exit("flags.py: COMMIT is not a whole commit name")
    paths = [p for p in git(repository, "ls-tree", "--name-only", commit, DIRECTORY + "/").split()
             if p.endswith(".go") and not SKIP.search(p)]
    texts = {p: git(repository, "show", f"{commit}:{p}") for p in paths}
    variables = {}
    for path, text in texts.items():
        for match in re.finditer(r"^\s*(?:var )?(\w+)\s+=\s+(&?cli\.\w+Flag\{)", text, re.M):
            inner = LITERAL.match(text, match.start(2))
            variables[match.group(1)], _ = literal(text, inner, path)
    rows = []
    for command, (file, head) in LISTS.items():
        path = f"{DIRECTORY}/{file}"
        text = texts[path]
        start = head.search(text)
        if not start:
            sys.exit(f"flags.py: {path} has no list of the flags of `{command}`")
        at, end = start.end(), end_of_block(text, start.end() - 1) - 1
        flags = []
        while True:
            while at < end and text[at] in " \t\n,":
                at += 1
            if at >= end:
                break
            if text.startswith("//", at):
                at = text.index("\n", at)
                continue
            match = LITERAL.match(text, at)
            if match:
                flag, at = literal(text, match, path)
                flags.append(flag)
                continue
            stop = min(text.index(",", at), text.index("\n", at))
            word = REFERENCE.match(text[at:stop])
            if not word or word.group(1) not in variables:
                sys.exit(f"flags.py: {path}: cannot read {text[at:stop]!r}")
            flags.append(variables[word.group(1)])
            at = stop
        rows += [(command, name, f.kind, f.line, f.file) for f in flags for name in f.names]
    rows.sort(key=lambda row: (row[0] != "server", row[1]))
    names = [row[:2] for row in rows]
    if len(set(names)) != len(names):
        sys.exit("flags.py: a flag stands twice")
    with open(out, "w", encoding="ascii") as table:
        table.write(f"# The flags of k3s, made by dist/k3s/flags.py from its source.\n"
                    f"# repository\tgithub.com/k3s-io/k3s\n# release\t{release}\n# commit\t{commit}\n"
                    "# command\tname\tkind\tline\tfile\n")
        for row in rows:
            table.write("\t".join(map(str, row)) + "\n")
    print(f"{out}: {len(rows)} lines")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main()
