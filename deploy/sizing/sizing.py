#!/usr/bin/env python3
"""Computes the tables of deploy/SIZING.md from the measured benchmark in README.md.

    python3 deploy/sizing/sizing.py            # fails if the document says something else
    python3 deploy/sizing/sizing.py --write    # writes it anew
"""

import math
import re
import sys

import document
from document import number, table

SPEED = document.section(document.ROOT / "README.md", "Speed")


def measured(row, column):
    """The number in a table's row and column, by what their heads begin with."""
    head = []
    for line in SPEED.splitlines():
        cells = [cell.strip(" *") for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            head = []
        elif not head:
            head = cells
        elif cells[0].startswith(row) and (at := [n for n, name in enumerate(head) if name.startswith(column)]):
            if found := re.search(r"\d[\d,]*(\.\d+)?", cells[at[0]]):
                return float(found.group().replace(",", ""))
    sys.exit(f"README.md, Speed: no number for `{row}` under `{column}`")


# What the benchmark measured, on one core.
CPU_US = measured("lambda-policy", "CPU a call")
PEAK = measured("lambda-policy", "calls/s")
IDLE_MB = measured("resident when idle, MB", "measured")
EVENT_COPIES = measured("copies of an event in memory", "measured")
ANSWER_COPIES = measured("copies of an answer in memory", "measured")
# What deploy/sizing/in_flight.py measured, and what TLS to Lambda adds.
CALL_KB, TLS_KB = 87, 24
# What a streamed answer holds, whatever its size; README, "Operate it".
STREAM_MB = 0.5

# What is planned with.
WAKING = 2.0  # A core that is not full wakes for each call, instead of handling many at once.
USED = 0.6  # How much of a core is used at the most; the HorizontalPodAutoscaler's target.
MAX_IN_FLIGHT = 1024  # server.max_in_flight
MAX_MIB = 192  # server.max_mib_in_flight
TARGET_IN_FLIGHT = 512  # The HorizontalPodAutoscaler's target.
LIMIT_MIB = 512  # A pod's memory.
MIB = 1024 * 1024
SMALL = 64 * 1024  # Up to this size a body does not count.
MOST_BYTES = 6 * MIB  # of an event, and of an answer
LEAST_PODS = 3
CORES_A_POD = 1
PLANNED = PEAK / WAKING * USED

# Limits of others.
EPHEMERAL_PORTS = 60999 - 32768 + 1  # net.ipv4.ip_local_port_range of Linux
NAT_CONNECTIONS = 55_000  # to one destination, for each address of a NAT gateway
NAT_ADDRESSES = 8  # of one NAT gateway
LAMBDA_CONCURRENCY = 1000  # of an account and region, unless raised
LAMBDA_RATE = 10  # calls/s for each unit of concurrency, at the most
LAMBDA_GROWTH = 1000 / 10  # environments/s of one function

RATES = (1_000, 100_000, 10_000_000)
PAYLOADS = (200, 10_000, 100_000, 1_000_000)
DURATIONS_MS = (5, 20, 100, 500, 1_000, 10_000)

# Prices of us-east-1 in USD, as AWS listed them in the first half of 2026, without discounts.
MONTH_HOURS = 730
CORE_HOUR = 0.0725 / 2  # c7g.large, two cores, on demand
REQUEST = 0.20 / 1e6
GB_SECOND = ((7.5e9, 0.0000133334), (18.75e9, 0.0000120001), (math.inf, 0.0000106667))  # arm64
ENDPOINT_HOUR = 0.01  # for each zone
ENDPOINT_GB = ((1e6, 0.01), (5e6, 0.006), (math.inf, 0.004))
NAT_HOUR, NAT_GB = 0.045, 0.045
HTTP_API = ((300e6, 1.00 / 1e6), (math.inf, 0.90 / 1e6))
ZONES = 3
FUNCTION_GB, FUNCTION_S = 0.128, 0.1
CALL_BYTES = 2_500  # Both ways: 200 bytes of event and of answer, headers, the signature, TLS and TCP.


def tiered(amount, tiers):
    """What an amount costs where the price falls with it."""
    cost, below = 0.0, 0.0
    for most, price in tiers:
        cost += (min(amount, most) - below) * price
        if amount <= most:
            break
        below = most
    return cost


def concurrency(rate, seconds):
    """An environment does one call at a time, and no more than ten a second."""
    return max(rate * seconds, rate / LAMBDA_RATE)


def pods(rate, seconds):
    by_cpu = rate / (PLANNED * CORES_A_POD)
    by_calls = rate * seconds / TARGET_IN_FLIGHT
    return max(LEAST_PODS, math.ceil(max(by_cpu, by_calls)))


def memory_mb(in_flight, payload, most_mib=MAX_MIB):
    """With every call holding its event, and at the worst its answer of the same size; as far as bodies may hold so much."""
    held = in_flight * payload
    if payload > SMALL:
        held = min(held, most_mib * MIB / 2)
    return IDLE_MB + (in_flight * (CALL_KB + TLS_KB) * 1024 + held * (EVENT_COPIES + ANSWER_COPIES)) / 1e6


def worst_mb(in_flight, most_mib):
    """All calls of one size, whichever takes most."""
    return max(memory_mb(in_flight, size, most_mib) for size in (SMALL, MOST_BYTES))


def mixed_mb(in_flight, most_mib):
    """A few calls fill the bound, and all others hold as much as does not count."""
    return memory_mb(in_flight, SMALL, most_mib) + memory_mb(in_flight, MOST_BYTES, most_mib) - memory_mb(in_flight, 0, most_mib)


def facts():
    return table(
        ["", "figure", "from"],
        [
            ["CPU of a call", f"{CPU_US:g} µs", "README, Speed"],
            ["calls/s of a full core", number(PEAK, 5), "README, Speed"],
            ["memory when idle", f"{IDLE_MB:g} MB", "README, Speed"],
            ["copies of an event, of an answer", f"{EVENT_COPIES:g}, {ANSWER_COPIES:g}", "README, Speed"],
            ["memory of a call in flight, small events", f"{CALL_KB} KB", "`in_flight.py`"],
            ["what TLS to Lambda adds to it", f"{TLS_KB} KB", "measured with a prototype"],
            ["CPU of a call on a core that is not full", f"× {WAKING:g}", "measured with a prototype: 1.7"],
            ["how much of a core is used", f"{USED:.0%}", "the autoscaler's target"],
            ["**calls/s planned for a core**", f"**{number(PLANNED)}**", "the above"],
        ],
        left=(0, 2),
    )


def pod():
    rows = []
    for duration in DURATIONS_MS:
        seconds = duration / 1000
        by_calls = TARGET_IN_FLIGHT / seconds
        rate = min(PLANNED * CORES_A_POD, by_calls)
        in_flight = rate * seconds
        bound = "CPU" if PLANNED * CORES_A_POD <= by_calls else "calls in flight"
        rows.append(
            [f"{duration:,} ms", number(rate), bound, number(in_flight)]
            + [number(memory_mb(in_flight, size)) for size in PAYLOADS]
        )
    most = [number(memory_mb(MAX_IN_FLIGHT, size)) for size in PAYLOADS]
    rows.append(["at `max_in_flight`", "", "", f"{MAX_IN_FLIGHT:,}", *most])
    head = ["the function takes", "calls/s of a pod", "bound by", "in flight = connections", "MB at 200 B", "MB at 10 KB", "MB at 100 KB", "MB at 1 MB"]
    return table(head, rows, left=(0, 2))


def words():
    from_ms = TARGET_IN_FLIGHT / (PLANNED * CORES_A_POD) * 1000
    limit = LIMIT_MIB * MIB / 1e6
    most, mixed = worst_mb(MAX_IN_FLIGHT, MAX_MIB), mixed_mb(MAX_IN_FLIGHT, MAX_MIB)
    larger = next(mib for mib in range(LIMIT_MIB, 1 << 20, 256) if mixed <= mib * MIB / 1e6)
    largest = int(MAX_MIB / 2 * MIB // MOST_BYTES)
    streams = int((limit - IDLE_MB) / (STREAM_MB + (CALL_KB + TLS_KB) * 1024 / 1e6))
    return f"""- From {number(from_ms, 2)} ms on, a pod is bound by calls in flight, not by CPU. For slow functions raise `max_in_flight` and the
  autoscaler's target: a call that waits costs memory only.
- {MAX_IN_FLIGHT:,} calls with events and answers of one size, whichever that is, hold {number(most)} MB at the most, of {number(limit)} MB that {LIMIT_MIB} MiB are:
  bodies above 64 KiB hold what `max_mib_in_flight: {MAX_MIB}` lets them, half of it for events and half for answers. At 6 MB, which is what
  Lambda takes at most, {largest} events fill their half, of which a policy alone gets three quarters; a further one is `OVERLOADED`. A further
  answer waits to be read.
- At the very worst, where large ones fill that and all other calls hold 64 KiB each way, it is {number(mixed)} MB. Who expects it gives
  a pod {larger} MiB.
- A streamed answer holds {STREAM_MB:g} MB, whatever its size: {LIMIT_MIB} MiB bear {streams:,} of them and nothing else. Give policies with `stream: true` a
  `max_in_flight` of their own.
- What clients do not read comes on top, 400 KB a call at the most. Gateways read."""


def scale():
    rows = []
    for rate in RATES:
        for duration in (20, 100, 1_000):
            seconds = duration / 1000
            count, open_ = pods(rate, seconds), rate * seconds
            wanted = concurrency(rate, seconds)
            addresses = math.ceil(open_ / NAT_CONNECTIONS)
            rows.append(
                [
                    f"{rate:,}",
                    f"{duration:,} ms",
                    f"{count:,}",
                    number(open_),
                    number(open_ / count),
                    f"{addresses:,} ({math.ceil(addresses / NAT_ADDRESSES):,})",
                    number(wanted),
                    f"× {number(wanted / LAMBDA_CONCURRENCY)}",
                    span(wanted / LAMBDA_GROWTH),
                ]
            )
    head = [
        "calls/s",
        "function takes",
        "pods",
        "connections",
        "of a pod",
        "NAT addresses (gateways)",
        "Lambda's concurrency",
        "of the default",
        "one function grows to it in",
    ]
    return table(head, rows)


def span(seconds):
    if seconds < 120:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60)} min" if seconds < 7200 else f"{number(seconds / 3600)} h"


def costs(rate):
    """USD a month, by what is paid for."""
    calls = rate * MONTH_HOURS * 3600
    gigabytes = calls * CALL_BYTES / 1e9
    return {
        "the service": pods(rate, FUNCTION_S) * CORES_A_POD * CORE_HOUR * MONTH_HOURS,
        "VPC endpoints": 2 * ZONES * ENDPOINT_HOUR * MONTH_HOURS + tiered(gigabytes, ENDPOINT_GB),
        "or NAT gateways": ZONES * NAT_HOUR * MONTH_HOURS + gigabytes * NAT_GB,
        "Lambda, requests": calls * REQUEST,
        "Lambda, time": tiered(calls * FUNCTION_GB * FUNCTION_S, GB_SECOND),
        "an HTTP API in its place": tiered(calls, HTTP_API),
    }


def cost():
    by_rate = {rate: costs(rate) for rate in RATES}
    rows = []
    for line in by_rate[RATES[0]]:
        row = [line]
        for rate in RATES:
            each = by_rate[rate][line]
            row += [f"{number(each)}", number(each / (rate * MONTH_HOURS * 3600) * 1e6, 2)]
        rows.append(row)
    head = ["USD"] + [text for rate in RATES for text in (f"{rate:,} calls/s, a month", "a million calls")]
    return table(head, rows)


def limits():
    return table(
        ["", "limit", "what it bounds"],
        [
            ["ephemeral ports of a pod", f"{EPHEMERAL_PORTS:,}", f"connections to one address of Lambda; {EPHEMERAL_PORTS // MAX_IN_FLIGHT} × `max_in_flight`"],
            ["a NAT gateway's address", f"{NAT_CONNECTIONS:,}", f"connections to one address of Lambda, of all pods behind it; {NAT_ADDRESSES} addresses are {NAT_CONNECTIONS * NAT_ADDRESSES:,}"],
            ["an account's concurrency", f"{LAMBDA_CONCURRENCY:,}", f"calls in flight of all functions of a region; and {LAMBDA_CONCURRENCY * LAMBDA_RATE:,} calls/s"],
            ["a function's growth", "1,000 in 10 s", "environments that are started; or 10,000 calls/s more"],
        ],
        left=(0, 2),
    )


if __name__ == "__main__":
    document.main(__doc__, {"facts": facts(), "pod": pod(), "words": words(), "limits": limits(), "scale": scale(), "cost": cost()})
