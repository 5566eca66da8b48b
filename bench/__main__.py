"""All benchmarks one after another, each in a process of its own; or those that are named.

python -m bench
python -m bench swarm small_image
"""

import subprocess
import sys
from pathlib import Path

NAMES = ("import_image", "pull_one_peer", "swarm", "small_image", "memory", "campaign", "read_image", "boot", "rates")


def main() -> int:
    chosen = sys.argv[1:] or list(NAMES)
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        print(f"there is no benchmark {unknown[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    missed = []
    for name in chosen:
        print(f"--- {name}", flush=True)
        if subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py")], check=False).returncode:
            missed.append(name)
    if missed:
        print(f"--- missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
