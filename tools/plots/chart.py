"""Line charts as SVG, in one function and with nothing to install."""

import math
from html import escape

COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf", "#7f7f7f", "#bcbd22"]


def ticks(low, high, log):
    """Round values from low to high: the powers of ten times 1, 2 and 5, or multiples of one of those."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    power = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= 6)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def line_chart(series, xlabel, ylabel, logx=False, logy=False, size=(720, 400), bounds=None):
    """`series` maps a name to its points; `bounds`, if given, is the least and the greatest y that are drawn."""
    width, height = size
    left, right, top, bottom = 70, 150, 15, 45
    points = [p for line in series.values() for p in line]
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = bounds or (min(y for _, y in points), max(y for _, y in points))

    def scale(value, low, high, log, first, last):
        if log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return first + (value - low) / (high - low) * (last - first)

    x_of = lambda x: scale(x, x_low, x_high, logx, left, width - right)
    y_of = lambda y: scale(min(max(y, y_low), y_high), y_low, y_high, logy, height - bottom, top)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    text = lambda x, y, s, anchor: out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(s)}</text>')
    for x in ticks(x_low, x_high, logx):
        out.append(f'<path d="M{x_of(x):.1f} {top}V{height - bottom}" stroke="#ddd"/>')
        text(x_of(x), height - bottom + 16, f"{x:g}", "middle")
    for y in ticks(y_low, y_high, logy):
        out.append(f'<path d="M{left} {y_of(y):.1f}H{width - right}" stroke="#ddd"/>')
        text(left - 6, y_of(y) + 4, f"{y:g}", "end")
    text((left + width - right) / 2, height - 10, xlabel, "middle")
    text(left, top - 3 + 14, ylabel, "start")
    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in line)
        dash = ' stroke-dasharray="5 3"' if i >= len(COLOURS) else ""
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>')
        y = top + 12 + 16 * i
        out.append(f'<path d="M{width - right + 8} {y - 4}h18" stroke="{colour}" stroke-width="2"{dash}/>')
        text(width - right + 30, y, name, "start")
    return "\n".join(out + ["</svg>", ""])
