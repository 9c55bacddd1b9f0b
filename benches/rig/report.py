"""The numbers as Markdown. `samples` and `memory` are `{name: {proxy: [one of each round]}}`."""

from statistics import median

from . import goals, idle, load


def total(sample):
    """CPU time of one request."""
    return sample.user + sample.system


def spread(values, digits=2):
    """The median with the least and the greatest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def tables(samples, memory):
    """All tables as lines."""
    titles = {workload.name: workload.title for workload in load.WORKLOADS}
    by_title = [(titles[name], by_proxy) for name, by_proxy in samples.items()]
    parts = [goals.table(samples, memory), workload_table(by_title), ratio_table(by_title), memory_table(memory)]
    return [line for part in parts if part for line in [*part, ""]]


def workload_table(results):
    """What each proxy did in each workload."""
    lines = [
        "| workload | proxy | CPU µs a request (user + system) | requests/s | p50 ms | p99 ms | p99.9 ms "
        "| RSS MiB | errors |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for title, by_proxy in results:
        for name, rows in by_proxy.items():
            mid = {field: median(getattr(row, field) for row in rows) for field in rows[0]._fields}
            times = " | ".join(f"{mid[field] / 1000:.2f}" for field in ("p50", "p99", "p999"))
            lines.append(
                f"| {title} | {name} | {median(map(total, rows)):.1f} ({mid['user']:.1f} + {mid['system']:.1f}) "
                f"| {mid['rate']:,.0f} | {times} | {mid['resident'] / 2**20:.1f} | {sum(row.errors for row in rows)} |")
    return lines if results else []


def ratio_table(results):
    """The last proxy against each other one, round by round: slow changes of the machine fall out."""
    values = (total, lambda s: s.rate, lambda s: s.p50, lambda s: s.p99, lambda s: s.p999)
    lines = ["| workload | ratio | CPU a request | requests/s | p50 | p99 | p99.9 |", "|---|---|--:|--:|--:|--:|--:|"]
    head = len(lines)
    for title, by_proxy in results:
        *others, subject = by_proxy
        for other in others:
            columns = [spread(goals.ratios(by_proxy, subject, other, value)) for value in values]
            lines.append(f"| {title} | {subject} / {other} | {' | '.join(columns)} |")
    return lines if len(lines) > head else []


def memory_table(memory):
    """Memory of what is idle."""
    titles = {measure.name: measure.title for measure in idle.MEASURES}
    lines = ["| memory of | proxy | resident | each page once |", "|---|---|--:|--:|"]
    for name, by_proxy in memory.items():
        for proxy, rows in by_proxy.items():
            columns = [spread([row[column] for row in rows], 1) for column in (0, 1)]
            lines.append(f"| {titles[name]} | {proxy} | {' | '.join(columns)} |")
    return lines if memory else []


def between_markers(text, name, inside):
    """`text` with what stands between `<!-- name:begin -->` and `<!-- name:end -->` replaced."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        raise ValueError(f"no {begin} … {end} in the file")
    return text[:text.index(begin) + len(begin)] + f"\n{inside}\n" + text[text.index(end):]
