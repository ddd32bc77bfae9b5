"""Ask the Open Source Vulnerabilities database about the tested versions, where it can be reached.

constraints.txt --pip-audit--> nothing known, what is known (exit code 1), or that nobody answers
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent
SECONDS = 120
ASKED = ("-s", "osv", "--disable-pip", "--no-deps", "--progress-spinner", "off", "--timeout", "10")


def main() -> int:
    """Audit; the exit code is 1 only where something is known."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(HERE / "constraints.txt"), *ASKED]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        print("audit: skipped, the vulnerability database does not answer")
        return 0
    # Its exit code is 1 for both; only what is known comes as a table on standard output.
    if done.returncode and not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        reason = last.partition(":")[0]
        print(f"audit: skipped, the vulnerability database cannot be asked ({reason})")
        return 0
    print(done.stdout.strip() or done.stderr.strip())
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
