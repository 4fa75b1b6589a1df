# Sourced by the scripts of this repository. Defines: root, have, say, not_run, jobs.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf '%s\n' "$*"; }

# One plain line for everything that a script leaves out, and why. `tests/run` gathers these lines.
not_run() { printf 'not run: %s\n' "$*"; }

jobs=${SHUNT_JOBS:-$(nproc 2>/dev/null || echo 2)}
