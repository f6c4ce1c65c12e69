#!/usr/bin/env python3
"""Planning a site: an upgrade of the system on every machine, three control planes among them.

There is no peer that plans a whole site; the figure is held against the target of 100 ms for 1,000 machines. The time is
that of the planner with its own checks, taken inside of one process, so that the start of a program is not in it.
"""

import argparse
import os

import measure

SIMULATOR = os.path.join(measure.ROOT, "target/release/bramble-sim")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machines", default="10,100,1000")
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    if not os.access(SIMULATOR, os.X_OK):
        measure.refuse(f"{SIMULATOR} is not built", "cargo build --release --package bramble-sim")
    measure.quiet()
    results = []
    print(measure.HEADER)
    for machines in map(int, arguments.machines.split(",")):
        command = [SIMULATOR, "plan-speed", "--machines", str(machines), "--runs", str(arguments.runs)]
        values = [float(line) for line in measure.output(command).split()]
        found = measure.spread(values)
        results.append({"machines": machines, "milliseconds": found})
        print(measure.row(f"{machines} machines", found, f"ms of {len(values)}"), flush=True)
    measure.write_json(os.path.join(measure.WORK, "plan.json"), {"computer": measure.computer(), "results": results})


if __name__ == "__main__":
    main()
