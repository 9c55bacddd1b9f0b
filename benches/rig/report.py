"""The numbers as Markdown and as a picture."""

from statistics import median

COLOURS = {"nginx": ("#1b7f4b", "#7cc79f"), "haproxy": ("#2b5c9e", "#8fb4e3"), "cobalance": ("#b3541e", "#eba679")}


def total(sample):
    """CPU time of one request."""
    return sample.user + sample.system


def ratios(samples, name, other, value):
    """`value` of `name` over that of `other`, round by round."""
    return [value(a) / value(b) for a, b in zip(samples[name], samples[other]) if value(b) > 0]


def spread(values, digits=2):
    """The median with the least and the greatest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def tables(results):
    """`results` is `[(workload, {proxy: [Sample]})]`; gives the two tables as lines."""
    lines = [
        "| workload | proxy | CPU µs a request (user + system) | requests/s | p50 ms | p99 ms | RSS MiB | errors |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for workload, samples in results:
        for name, rows in samples.items():
            mid = {field: median(getattr(row, field) for row in rows) for field in rows[0]._fields}
            cpu = median(total(row) for row in rows)
            lines.append(
                f"| {workload.title} | {name} | {cpu:.1f} ({mid['user']:.1f} + {mid['system']:.1f}) "
                f"| {mid['rate']:,.0f} | {mid['p50'] / 1000:.2f} | {mid['p99'] / 1000:.2f} "
                f"| {mid['resident'] / 2**20:.1f} | {sum(row.errors for row in rows)} |")
    return lines + ["", *ratio_table(results)]


def ratio_table(results):
    """Ratios of each round: the machine's slow changes fall out of them."""
    names = list(results[0][1])
    pairs = [(a, b) for a in reversed(names) for b in names if names.index(b) < names.index(a)]
    lines = ["| workload | ratio | CPU a request | requests/s | p99 |", "|---|---|--:|--:|--:|"]
    for workload, samples in results:
        for a, b in pairs:
            columns = [spread(ratios(samples, a, b, value)) for value in (total, lambda s: s.rate, lambda s: s.p99)]
            lines.append(f"| {workload.title} | {a} / {b} | {' | '.join(columns)} |")
    return lines if pairs else []


def picture(results):
    """Bars of CPU time a request, user dark and system light, as SVG."""
    bars = [(workload.title, name, rows) for workload, samples in results for name, rows in samples.items()]
    # Each workload has its own scale: a megabyte costs fifty times what a kilobyte does.
    greatest = {workload.title: max(median(total(r) for r in rows) for rows in samples.values())
                for workload, samples in results}
    left, width, step, parts, top, seen = 230, 420, 20, [], 40, None
    for title, name, rows in bars:
        if title != seen:
            top += 12
            parts.append(f'<text x="8" y="{top + 14}">{title}</text>')
            seen = title
        user, system = median(r.user for r in rows), median(r.system for r in rows)
        scale = width / greatest[title]
        dark, light = COLOURS[name]
        parts.append(f'<rect x="{left}" y="{top}" width="{user * scale:.1f}" height="15" fill="{dark}"/>')
        parts.append(f'<rect x="{left + user * scale:.1f}" y="{top}" width="{system * scale:.1f}" height="15" fill="{light}"/>')
        parts.append(f'<text x="{left + (user + system) * scale + 6:.1f}" y="{top + 12}">{name} {user + system:.1f} µs</text>')
        top += step
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="800" height="{top + 12}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/>'
            f'<text x="8" y="22" font-size="14">CPU time of the proxy a request: user (dark) and system (light)</text>')
    return head + "".join(parts) + "</svg>\n"


def between_markers(text, name, inside):
    """`text` with what stands between `<!-- name:begin -->` and `<!-- name:end -->` replaced."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        raise ValueError(f"no {begin} … {end} in the file")
    return text[:text.index(begin) + len(begin)] + f"\n{inside}\n" + text[text.index(end):]
