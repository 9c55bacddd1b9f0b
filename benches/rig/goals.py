"""What cobalance must reach beside nginx, and whether it did."""

from collections import namedtuple
from statistics import median

# At most `must`, better `aim`; None where there is no such bound. `of` is a workload or a measure of
# memory, `value` what is taken of its samples; a ratio is cobalance's over nginx's, round by round.
Goal = namedtuple("Goal", "title of value must aim ratio")


def cpu(sample):
    """CPU time of one request; of equal bodies this is also that of a byte."""
    return sample.user + sample.system


def p99(sample):
    """Latency."""
    return sample.p99


def resident(memory):
    """Of an instance in MiB, or of one connection in KiB."""
    return memory.resident


def once(memory):
    """Of an instance, with each page counted once."""
    return memory.once


GOALS = [
    Goal("CPU a request, GET 1 KiB, 64 connections", "get-64", cpu, 0.90, 0.78, True),
    Goal("the same with access logs on", "logged", cpu, 0.90, 0.78, True),
    Goal("CPU a request, a connection each", "connect", cpu, 1.0, 0.9, True),
    Goal("CPU a request, POST 4 KiB", "post-4k", cpu, 0.95, 0.85, True),
    Goal("CPU a byte, 1 MiB bodies", "get-1m", cpu, 1.0, 0.8, True),
    Goal("CPU a request, TLS, GET 1 KiB, 64 connections", "tls-64", cpu, 1.0, None, True),
    Goal("CPU a full TLS handshake with a request", "tls-full", cpu, 1.1, None, True),
    Goal("CPU a resumed TLS handshake with a request", "tls-resumed", cpu, None, None, True),
    Goal("CPU a request, HTTP/2 over TLS, 100 streams", "h2-100", cpu, 1.0, None, True),
    Goal("p99 at half of nginx's rate", "half", p99, 1.0, 0.8, True),
    Goal("memory of an idle tunnel, KiB", "tunnels", resident, 5, 3, False),
    Goal("memory of an idle keep-alive connection, KiB", "connections", resident, 2, 1, False),
    Goal("memory of an idle connection over TLS, KiB", "tls-connections", resident, None, None, False),
    Goal("resident, idle, two threads or workers, as `ps` adds it up", "start", resident, 1.0, None, True),
    Goal("the same with each page counted once", "start", once, 1.0, None, True),
    Goal("the same in MiB", "start", once, None, 12, False),
]


def ratios(by_proxy, name, other, value):
    """`value` of `name` over that of `other`, round by round; 1 where both have none."""
    pairs = ((value(a), value(b)) for a, b in zip(by_proxy[name], by_proxy[other]))
    return [a / b if b > 0 else 1.0 if a <= 0 else float("inf") for a, b in pairs]


def verdict(goal, middle):
    """In one word."""
    if goal.aim is not None and middle <= goal.aim:
        return "aim"
    if goal.must is None:
        return "no" if goal.aim is not None else ""
    return "yes" if middle <= goal.must else f"**no**, by {(middle / goal.must - 1):.0%}"


def table(samples, memory):
    """The goals whose workload ran with both proxies, as lines."""
    lines = [
        "| cobalance ÷ nginx, or as it says | must | aim | measured | nginx | reached |",
        "|---|--:|--:|--:|--:|---|",
    ]
    head = len(lines)
    for goal in GOALS:
        by_proxy = {**samples, **memory}.get(goal.of, {})
        if {"cobalance", "nginx"} <= by_proxy.keys():
            lines.append(row(goal, by_proxy))
    return lines if len(lines) > head else []


def row(goal, by_proxy):
    """One line of the table."""
    if goal.ratio:
        values, its = ratios(by_proxy, "cobalance", "nginx", goal.value), "1"
    else:
        values = [goal.value(row) for row in by_proxy["cobalance"]]
        its = f"{median(map(goal.value, by_proxy['nginx'])):.2f}"
    bounds = " | ".join("" if bound is None else f"≤ {bound}" for bound in (goal.must, goal.aim))
    measured = f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    return f"| {goal.title} | {bounds} | {measured} | {its} | {verdict(goal, median(values))} |"
