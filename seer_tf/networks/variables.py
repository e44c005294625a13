"""Variables by name: the only way in which this project pairs the variables of two networks.

Freezing reorders `network.variables` (trainable ones first), so pairing by position, as TF-Agents
does, would silently copy weights into the wrong layer once one of two networks is frozen.
"""

from typing import Dict

import tensorflow as tf


def by_name(network) -> Dict[str, tf.Variable]:
  """Maps a variable's name below its network's own scope to the variable.

  Args:
    network: a Keras model or TF-Agents network whose variables exist.

  Raises:
    ValueError: if two variables share a name, so that pairing by name would be ambiguous.
  """
  named = {}
  for variable in network.variables:
    name = variable.name.split(':')[0]
    scope, _, rest = name.partition('/')
    name = rest if scope == network.name else name
    if name in named:
      raise ValueError(
        f'two variables of network {network.name!r} are called {name!r}; rename one.'
      )
    named[name] = variable
  return named


def pair(source, target):
  """Returns [(source variable, target variable)], matched by name and checked by shape.

  Raises:
    ValueError: naming the variables that only one network has, or whose shapes differ.
  """
  sources, targets = by_name(source), by_name(target)
  unmatched = sorted(set(sources) ^ set(targets))
  if unmatched:
    raise ValueError(
      f'networks {source.name!r} and {target.name!r} do not match: only one of them has '
      f'{unmatched}.'
    )
  for name, variable in sources.items():
    if variable.shape != targets[name].shape:
      raise ValueError(
        f'variable {name!r} has shape {tuple(variable.shape)} in {source.name!r} and '
        f'{tuple(targets[name].shape)} in {target.name!r}.'
      )
  return [(variable, targets[name]) for name, variable in sources.items()]


def copy(source, target):
  """Assigns every variable of `source` to its namesake in `target`."""
  for variable, twin in pair(source, target):
    twin.assign(variable)


def track(source, target, tau: float):
  """Moves `target` by the fraction `tau` of the way to `source` (Polyak averaging)."""
  for variable, twin in pair(source, target):
    twin.assign_add(tau * (variable - twin))
