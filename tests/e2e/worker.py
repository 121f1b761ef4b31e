"""Runs tests for tests/e2e/run, one after the other, in a process of its own (in one under sudo for those
that need root). A test's number and name come in, one a line; a JSON object a line goes out. When the input
ends, so does the worker, with whatever test it is in: that is also how one is stopped that runs as root.

`worker.py OPTIONS`, OPTIONS a JSON object: rap, old_rap, long, keep_logs, ports [first, end)."""

import contextlib
import importlib
import io
import json
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import lib  # noqa: E402 pylint: disable=wrong-import-position

MODULES = sorted(f.removesuffix(".py") for f in os.listdir(HERE) if f.endswith("_tests.py"))
TEST_LIMIT = 240  # seconds


def all_tests(old_rap):
    for module in MODULES:
        for name, test in vars(importlib.import_module(module)).items():
            if name.startswith("test_") and (old_rap or module != "upgrade_tests"):
                yield name.removeprefix("test_"), test


def on_alarm(_signum, _frame):
    raise lib.Failure(f"not finished after {TEST_LIMIT} s")


def on_term(_signum, _frame):
    raise KeyboardInterrupt


def run_test(env, test):
    """What became of it, to be told to the runner."""
    outcome, why, printed = "failed", None, io.StringIO()
    start = time.monotonic()
    signal.alarm(TEST_LIMIT)
    try:
        with contextlib.redirect_stdout(printed):
            test(env)
        outcome = "ok"
    except lib.NeedsRoot:
        outcome = "needs_root"
    except lib.Failure as e:
        where = [f for f in traceback.extract_tb(e.__traceback__) if f.name.startswith("test_")]
        why = f"{e}" + "".join(f"\n    at {os.path.basename(f.filename)}:{f.lineno}: {f.line}"
                               for f in where)
    except Exception:  # pylint: disable=broad-except
        why = traceback.format_exc()
    finally:
        signal.alarm(0)
        env.cleanup()
    if why is not None:
        why += "\n" + env.log_tails()
    return {"outcome": outcome, "why": why, "printed": printed.getvalue(),
            "seconds": time.monotonic() - start}


def listen(inbox):
    """The runner's lines into inbox. Its end is ours, in the middle of a test too."""
    for line in sys.stdin:
        inbox.put(line.split())
    inbox.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


def main():
    o = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the tests start does not speak to the runner
    lib.PORTS = range(*o["ports"])
    tests = dict(all_tests(o["old_rap"]))
    inbox = queue.Queue()
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner's: it closes our input
    folder = tempfile.mkdtemp(prefix="rap-e2e-")
    keep = False
    try:
        threading.Thread(target=listen, args=(inbox,), daemon=True).start()
        while (task := inbox.get()) is not None:
            number, name = task
            # Short: a socket's path has room for 107 bytes.
            env = lib.Env(o["rap"], os.path.join(folder, f"{number}-{name[:16]}"),
                          old_rap=o["old_rap"], long=o["long"])
            done = run_test(env, tests[name])
            keep = keep or (o["keep_logs"] and done["outcome"] == "failed")
            done["kept"] = folder if keep else None
            print(json.dumps(done), file=answers, flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
