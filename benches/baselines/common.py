"""What both baselines share: the line protocol with `boltzmap bench engine`, arrays, threads and memory.

The process reads one JSON object per line and answers each with one:

    {"op": "prepare", "task": NAME, "candidate_seconds": N}
                                        build every candidate, keep the fastest, write its results; a candidate that
                                        takes longer than N seconds to build and try is given up
    {"op": "sample", "calls": K}        seconds of one call, the mean of K
    {"op": "memory", "task": NAME}      peak memory of the task, in a process that did nothing else
    {"op": "exit"}

Nothing runs between two answers, so that only one side computes at a time.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from contextlib import contextmanager

import numpy as np
from safetensors.numpy import load_file, save_file


class Specification:
    """The workload as the Rust side describes it, with its arrays."""

    def __init__(self, path):
        with open(path) as file:
            self.values = json.load(file)
        self.directory = os.path.dirname(os.path.abspath(path))
        arrays = load_file(self.values["arrays"])
        self.parameters = {}
        self.inputs = {}
        for name, value in arrays.items():
            kind, rest = name.split("/", 1)
            {"parameters": self.parameters, "inputs": self.inputs}[kind][rest] = np.ascontiguousarray(value)
        model = self.values["model"]
        self.kind = model["kind"]
        self.model = model
        self.batch = self.values["batch"]
        self.samples = self.values["jacobian_samples"]
        self.threads = self.values["threads"]
        self.optimizer = self.values["optimizer"]
        self.learning_rate = self.values["learning_rate"]
        self.compared_steps = self.values["compared_steps"]
        # The optimiser's flat buffers follow the order of the parameters in the Rust side's layout.
        self.names = self.values["parameter_names"]

    def batch_inputs(self, *names):
        return [self.inputs[name][: self.batch] for name in names]

    def jacobian_inputs(self, *names):
        return [self.inputs[name][: self.samples] for name in names]

    def ema_decay(self, step):
        """Decay of the moving average at a step counted from 1."""
        return min(self.optimizer["ema_decay"], (1.0 + step) / (10.0 + step))


def limit_threads(threads):
    """Binds the process to as many processors as it may have threads; to be called before any library starts one."""
    available = sorted(os.sched_getaffinity(0))
    if threads < len(available):
        os.sched_setaffinity(0, available[:threads])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def memory(field):
    """A line of /proc/self/status in bytes: VmRSS (resident now) or VmHWM (its peak)."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def reset_peak():
    """Sets the peak to what is resident now."""
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")


def seconds_of(call, calls):
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def first_line(error):
    text = f"{type(error).__name__}: {error}".strip()
    return text.splitlines()[0][:300]


class TooLong(Exception):
    """A candidate took longer than it may."""


@contextmanager
def time_limit(seconds):
    """Raises TooLong in the block once the seconds are over (in compiled code: when that returns to Python)."""

    def stop(_signal, _frame):
        raise TooLong(f"given up after {seconds:g} seconds of compiling and trying")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def tune(candidates, candidate_seconds):
    """Builds every candidate, times it briefly and returns (name, call, outputs, report) of the fastest.

    A candidate is a function without arguments that returns (call, outputs); `outputs` holds the results to compare.
    """
    best, report = None, {}
    for name, build in candidates.items():
        gc.collect()
        try:
            with time_limit(candidate_seconds):
                call, outputs = build()
                first = seconds_of(call, 1)
                # Short calls are repeated until 0.2 s have passed; long ones are believed after two.
                repeats = 1 if first > 2.0 else max(2, min(10, int(0.2 / max(first, 1e-6))))
                took = min(first, *(seconds_of(call, 1) for _ in range(repeats)))
        except Exception as error:  # noqa: BLE001: a library that lacks a derivative is a result, not a crash
            traceback.print_exc()
            report[name] = first_line(error)
            continue
        report[name] = took
        if best is None or took < best[1]:
            best = (name, took, call, outputs)
        call = outputs = None
    if best is None:
        raise RuntimeError("; ".join(f"{name}: {problem}" for name, problem in report.items()))
    return best[0], best[2], best[3], report


def serve(specification, versions, make, warm_up, release=lambda: None):
    """Answers until the other side closes the pipe.

    `make(task)` returns the candidates of a task, or None where the baseline has none.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print does not belong to the protocol.

    def reply(**values):
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    reply(ready=True, versions=versions)
    call, number = None, 0
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "prepare":
                call = None
                release()
                gc.collect()
                candidates = make(request["task"])
                if not candidates:
                    reply(ok=False, error="this baseline has no such task")
                    continue
                name, call, outputs, report = tune(candidates, request["candidate_seconds"])
                number += 1
                path = os.path.join(specification.directory, f"outputs-{os.getpid()}-{number}.safetensors")
                arrays = {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in outputs.items()}
                save_file(arrays, path, metadata={"boltzmap": "{}"})
                reply(ok=True, outputs=path, strategy=name, candidates=report)
            elif request["op"] == "sample":
                reply(ok=True, seconds=seconds_of(call, request["calls"]))
            elif request["op"] == "memory":
                warm_up()
                gc.collect()
                before = memory("VmRSS")
                candidates = make(request["task"])
                name = request.get("strategy") or next(iter(candidates))
                call, _ = candidates[name]()
                call()
                gc.collect()
                reset_peak()
                for _ in range(3):
                    call()
                reply(ok=True, bytes=max(memory("VmHWM") - before, 0), strategy=name)
            elif request["op"] == "exit":
                break
            else:
                reply(ok=False, error=f"unknown request {request['op']}")
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            reply(ok=False, error=first_line(error))
