"""One JSON of a machine's CUDA tests and benchmarks: gpu.py OUT gpu|soft TESTS.xml BENCHMARK.json..."""

import json
import subprocess
import sys
import xml.etree.ElementTree as xml


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def tests_of(path):
    try:
        cases = xml.parse(path).getroot().iter("testcase")
    except OSError:
        return []
    return [{"name": c.get("name"), "status": c.get("status"), "seconds": float(c.get("time", 0))}
            for c in cases]


def main(out, device, tests, *files):
    documents = [json.load(open(f, encoding="utf-8")) for f in files]
    query = "name,driver_version,compute_cap,memory.total,clocks.max.sm,clocks.max.memory,power.limit"
    results = tests_of(tests)
    whole = {
        "device": device,
        "timed": device == "gpu",
        "gpu": device == "gpu" and said("nvidia-smi", f"--query-gpu={query}", "--format=csv") or None,
        "nvcc": (said("nvcc", "--version") or "").splitlines()[-1:],
        "commit": said("git", "rev-parse", "HEAD"),
        "context": documents[0]["context"] if documents else None,
        "tests": results,
        "benchmarks": [b for d in documents for b in d["benchmarks"]],
    }
    with open(out, "w", encoding="utf-8") as f:
        json.dump(whole, f, indent=1)
    failed = [t["name"] for t in results if t["status"] not in ("run", "notrun", "disabled")]
    print(f"{len(results)} tests, {len(failed)} failed; {len(whole['benchmarks'])} benchmarks")


main(*sys.argv[1:])
