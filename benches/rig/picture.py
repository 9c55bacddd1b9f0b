"""CPU time a request as a picture (SVG)."""

from statistics import median

from . import load

COLOURS = {
    "nginx": ("#1b7f4b", "#7cc79f"), "haproxy": ("#2b5c9e", "#8fb4e3"), "envoy": ("#7a3b8f", "#c39bd3"),
    "caddy": ("#55606b", "#aab4be"), "cobalance": ("#b3541e", "#eba679"),
}
LEFT, WIDTH, STEP = 270, 420, 20


def picture(samples):
    """Bars of each proxy in each workload, user time dark and system time light."""
    parts, top = [], 40
    for workload in load.WORKLOADS:
        by_proxy = samples.get(workload.name, {})
        times = {name: (median(row.user for row in rows), median(row.system for row in rows))
                 for name, rows in by_proxy.items()}
        if times:
            parts.append(f'<text x="8" y="{top + 26}">{workload.title}</text>')
            top += 12
        # Each workload has its own scale: a megabyte costs fifty times what a kilobyte does.
        greatest = max((sum(pair) for pair in times.values()), default=0) or 1
        for name, (user, system) in times.items():
            parts.append(bar(top, name, user, system, WIDTH / greatest))
            top += STEP
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="{top + 12}" font-family="sans-serif" '
            f'font-size="12"><rect width="100%" height="100%" fill="white"/><text x="8" y="22" font-size="14">'
            f'CPU time of the proxy a request: user (dark) and system (light)</text>{"".join(parts)}</svg>\n')


def bar(top, name, user, system, scale):
    """One bar with its text."""
    dark, light = COLOURS[name]
    return (f'<rect x="{LEFT}" y="{top}" width="{user * scale:.1f}" height="15" fill="{dark}"/>'
            f'<rect x="{LEFT + user * scale:.1f}" y="{top}" width="{system * scale:.1f}" height="15" fill="{light}"/>'
            f'<text x="{LEFT + (user + system) * scale + 6:.1f}" y="{top + 12}">{name} {user + system:.1f} µs</text>')
