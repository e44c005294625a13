"""Curves with intervals as a plain SVG, without a plotting library."""

from typing import Mapping, NamedTuple, Sequence
from xml.sax import saxutils

_WIDTH, _HEIGHT, _MARGIN = 360, 260, 48  # of a panel, in pixels
_COLOURS = [
  '#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#888888', '#000000', '#ee8866',
  '#44bb99', '#663300', '#ffaabb',
]  # fmt: skip


class Curve(NamedTuple):
  """Points of one curve, first to last."""

  x: Sequence[float]
  y: Sequence[float]
  low: Sequence[float]  # of the interval of y
  high: Sequence[float]


def panels(titles: Sequence[str], curves: Sequence[Mapping[str, Curve]]) -> str:
  """An SVG of panels side by side, and a legend below them.

  Args:
    titles: of the x axis of each panel.
    curves: of each panel: the same names in each, at least one curve with at least one point.
  """
  names = list(curves[0])
  parts = [_panel(i, title, panel) for i, (title, panel) in enumerate(zip(titles, curves))]
  for i, name in enumerate(names):
    x, y = _MARGIN + 200 * (i % 5), _HEIGHT + 16 * (i // 5) + 14
    colour = _COLOURS[i % len(_COLOURS)]
    parts.append(
      f'<path d="M{x} {y - 4}h20" stroke="{colour}" stroke-width="2"/>' + _text(x + 26, y, name)
    )
  width, height = _WIDTH * len(titles), _HEIGHT + 16 * (1 + len(names) // 5) + 14
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    f'font-family="sans-serif" font-size="11">\n' + '\n'.join(parts) + '\n</svg>\n'
  )


def _text(x, y, text, anchor='start') -> str:
  return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{saxutils.escape(text)}</text>'


def _panel(place: int, title: str, curves: Mapping[str, Curve]) -> str:
  """One panel, its axes from zero."""
  right = max(max(curve.x) for curve in curves.values()) or 1.0
  top = max(max(curve.high) for curve in curves.values()) or 1.0
  left, bottom = place * _WIDTH + _MARGIN, _HEIGHT - _MARGIN + 12
  across = lambda x: left + (_WIDTH - _MARGIN - 12) * x / right
  up = lambda y: bottom - (bottom - 12) * y / top
  parts = [
    f'<path d="M{left} 12V{bottom}H{across(right):.1f}" fill="none" stroke="black"/>',
    _text(across(right / 2), bottom + 30, title, 'middle'),
  ]
  for part in (0.0, 0.5, 1.0):
    parts.append(_text(across(part * right), bottom + 14, f'{part * right:.4g}', 'middle'))
    parts.append(_text(left - 4, up(part * top) + 4, f'{part * top:.4g}', 'end'))
  for i, curve in enumerate(curves.values()):
    colour = _COLOURS[i % len(_COLOURS)]
    line = lambda ys, xs: ' '.join(f'{across(x):.1f},{up(y):.1f}' for x, y in zip(xs, ys))
    band = f'{line(curve.low, curve.x)} {line(curve.high[::-1], curve.x[::-1])}'
    parts.append(f'<polygon points="{band}" fill="{colour}" fill-opacity="0.15"/>')
    parts.append(
      f'<polyline points="{line(curve.y, curve.x)}" fill="none" stroke="{colour}" '
      f'stroke-width="1.5"/>'
    )
  return '\n'.join(parts)
