import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, time
from telemetry.signals import exit_on_signals, stop_on_signals

async def main():
    exit_on_signals()
    if {starting}:
        print("ready", flush=True)
        time.sleep(10)
    stop = stop_on_signals()
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    time.sleep(10 if {busy} else 0)

asyncio.run(main())
"""


def start(*, busy: bool = False, starting: bool = False) -> "subprocess.Popen[str]":
    program = PROGRAM.format(busy=busy, starting=starting)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_starting_process(number: signal.Signals) -> None:
    with start(starting=True) as process:
        process.send_signal(number)
        assert process.wait(3) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_starts_the_shutdown(number: signal.Signals) -> None:
    with start() as process:
        process.send_signal(number)
        assert process.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_a_process_during_its_shutdown(number: signal.Signals) -> None:
    with start(busy=True) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(number)
        assert process.wait(3) == 128 + number


def test_a_process_that_does_not_stop_is_ended() -> None:
    program = "import time; from telemetry.signals import LastResort; LastResort(lambda: 3).begin(0.2); time.sleep(30)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.wait(10) == 3


BUSY = """
import asyncio, os, sys, time
from telemetry.signals import LastResort, stop_on_signals

async def main():
    last_resort = LastResort(lambda: 3)
    stop_on_signals(lambda: last_resort.begin(0.5))
    print("ready", flush=True)
    time.sleep(30)  # blocks the loop before it can handle a signal

asyncio.run(main())
"""


def test_a_signal_ends_a_process_whose_loop_is_blocked() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 3


def test_a_blocked_log_does_not_delay_the_end() -> None:
    stuck = "import telemetry.signals\ntelemetry.signals._log_timeout = lambda: time.sleep(30)\n"
    program = BUSY.replace("async def main", stuck + "async def main")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 3
