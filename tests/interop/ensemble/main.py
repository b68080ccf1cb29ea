"""Plays the scenarios with ensembles of ringkeeper and ZooKeeper servers.

usage: main.py BINARY JARS SCRATCH small|full [NAME...]
"""

import base64
import hashlib
import logging
import signal
import sys
import time
import traceback
import types

import scenarios
from cluster import SUPER


def main():
    binary, jars, scratch, budget, *names = sys.argv[1:]
    # The servers have to go, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # What the library says of lost connections is expected here.
    logging.disable(logging.CRITICAL)
    hashed = base64.b64encode(hashlib.sha1(SUPER.encode()).digest()).decode()
    digest = f"super:{hashed}"
    is_full = budget == "full"
    settings = types.SimpleNamespace(
        binary=binary, jars=jars, scratch=scratch, digest=digest, is_full=is_full
    )
    chosen = scenarios.FULL if is_full else scenarios.SMALL
    if names:
        chosen = [scenario for scenario in scenarios.FULL if scenario.__name__ in names]
    passed = failed = 0
    for scenario in chosen:
        try:
            for title, play in scenario(settings):
                began = time.monotonic()
                print(f"-- {title}", flush=True)
                play()
                passed += 1
                print(f"ok {title} ({time.monotonic() - began:.1f} s)", flush=True)
        # One that fails leaves its servers in a state that the next step was not made for.
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"FAILED {scenario.__name__}", flush=True)
            traceback.print_exc(file=sys.stdout)
    print(f"ensemble: {passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
