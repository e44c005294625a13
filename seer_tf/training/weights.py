"""Weights of a policy as bytes, by name: how they travel from the learner to actors.

Pairing by position, as TF-Agents' `ReverbVariableContainer` does, would put weights into the wrong
layer as soon as one side has frozen some.
"""

import io

import numpy as np

from seer_tf.networks import variables


def pack(agent) -> bytes:
  """The weights that acting with a split agent takes: of `agent.acting_networks`."""
  arrays = {
    f'{part}/{name}': variable.numpy()
    for part, network in agent.acting_networks.items()
    for name, variable in variables.by_name(network).items()
  }
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def unpack(packed: bytes, agent):
  """Gives `agent` the weights that `pack` made bytes of.

  Raises:
    ValueError: naming what only one side has, or whose shape differs; nothing is assigned then.
  """
  ours = {
    f'{part}/{name}': variable
    for part, network in agent.acting_networks.items()
    for name, variable in variables.by_name(network).items()
  }
  with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
    theirs = {name: arrays[name] for name in arrays}
  wrong = sorted(ours.keys() ^ theirs.keys())
  wrong += [
    f'{name} {theirs[name].shape}, here {tuple(ours[name].shape)}'
    for name in sorted(ours.keys() & theirs.keys())
    if theirs[name].shape != tuple(ours[name].shape)
  ]
  if wrong:
    raise ValueError(
      f'The published weights are not those of this agent: {"; ".join(wrong)}. Start every process '
      'of a run with the same gin files and bindings.'
    )
  for name, value in theirs.items():
    ours[name].assign(value)
