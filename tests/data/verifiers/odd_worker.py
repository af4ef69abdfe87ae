"""A child of `WorkerPool` that does what it is asked: echo, die, sleep, compute on, talk too much, show its home."""

import json
import os
import resource
import sys
import time

resource.setrlimit(resource.RLIMIT_CPU, (1, 1000))
for line in sys.stdin:
    request = json.loads(line)
    match request:
        case "die":
            os._exit(3)
        case "sleep":
            time.sleep(1000)
        case "compute":
            while True:
                pass
        case "garbage":
            print("no JSON", flush=True)
            continue
        case "flood":
            print("x" * 2_000_000, flush=True)
            continue
        case "environment":
            request = [sorted(os.environ), os.getcwd(), os.getpid()]
    print(json.dumps(request), flush=True)
