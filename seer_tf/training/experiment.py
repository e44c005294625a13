"""One experiment, as gin describes it: which environment, agent and schedule, and its numbers.

Every process of a run (learner, replay server, benchmark) builds its part from here, from the same
gin files and bindings; that is why they fit together.
"""

import dataclasses
import functools
import inspect
import math
from typing import Callable, Optional

import gin
from tf_agents.environments import py_environment
from tf_agents.train.utils import spec_utils

from seer_tf.agents import (  # noqa: F401 - gin knows what is imported
  augmentation,
  contrastive,
  dqn,
  reconstruction,
  sac,
)
from seer_tf.environments import dm_control
from seer_tf.freezing import progressive, schedule  # noqa: F401
from seer_tf.networks import (
  atari_encoders,  # noqa: F401
  encoders,
  residual_encoders,  # noqa: F401
  transfer,
  variables,
)
from seer_tf.replay import (
  capacity,  # noqa: F401
  checkpointer,  # noqa: F401
  codecs,
  priorities,  # noqa: F401
  tables,
)


def _makes(value) -> bool:
  """Whether it is a class or a function. What they make may be called, too, as a schedule is."""
  return inspect.isclass(value) or inspect.isroutine(value) or type(value) is functools.partial


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Experiment:
  """Builders and numbers of a run.

  Attributes:
    environment_fn: (seed=) -> `PyEnvironment` with pixels uint8 [H, W, C], for training.
    evaluation_environment_fn: the same for evaluation; None: `environment_fn`, called once more.
    agent_fn: (time_step_spec, action_spec, lower_fn=, augmentation=, freeze_up_to=,
      train_step_counter=) -> a TF-Agents agent with the split of `agents.split`.
    lower_fn: (image_shape) -> `encoders.Encoder`.
    freeze_up_to: name of its last layer that freezes, and whose output is stored; those above go on
      learning. None for the encoder's last, as published.
    augmentation_fn: () -> augmentation of images.
    schedule_fn: () -> when to freeze.
    store_latents: whether replay is converted once all layers below the cut are frozen. If not, it
      keeps pixels, and each update encodes what it samples: compute is saved, memory is not.
    codec_fn: (latent_shape) -> how latents are stored.
    transfer_from: root_dir of another run, whose encoder this one starts with; None: anew.
    total_agent_steps: length of the run.
    initial_random_agent_steps: actions drawn uniformly, before the first update.
    updates_per_agent_step: updates per action thereafter.
    updates_per_agent_step_from_latents: the same once it learns from latents; None: as before.
    batch_size: transitions per update.
    gamma: discount per agent step.
    evaluation_period: agent_steps between two evaluations.
    evaluation_episodes: episodes per evaluation, with the greedy policy.
    draws_per_block: transitions drawn, independently, from each block of latents that is sampled;
      more make sampling cheaper and the transitions of a batch less independent.
    conversion_batch_size: observations per batch of the conversion at the freeze.
    calibration_latents: latents, of observations sampled before the conversion, that the codec is
      fitted to.
    summary_period: updates between two TensorBoard summaries.
    checkpoint_period: updates between two checkpoints, what a killed run loses at most.
    actors_ahead_agent_steps: with actors of their own: agent steps that they may be ahead of what
      the learner has made its updates for.
    variables_period_seconds: between two publications of how the learner stands, and of its weights
      if actors need them; and between two looks of an actor at them. Acting stops for no longer at
      the freeze.
    variables_limit_seconds: an actor whose weights have not been confirmed for so long pauses.
    reconnect_seconds: how long each process tries to reach a replay server that has gone away.
  """

  environment_fn: Callable[..., py_environment.PyEnvironment] = dm_control.load
  evaluation_environment_fn: Optional[Callable[..., py_environment.PyEnvironment]] = None
  agent_fn: Callable = sac.SeerSacAgent
  lower_fn: Callable = encoders.ControlEncoder
  freeze_up_to: Optional[str] = None
  augmentation_fn: Callable = augmentation.RandomCrop
  schedule_fn: Callable = schedule.AtStep
  store_latents: bool = True
  codec_fn: Callable[..., codecs.Codec] = codecs.Uint8
  transfer_from: Optional[str] = None
  total_agent_steps: int = gin.REQUIRED
  initial_random_agent_steps: int = 1000
  updates_per_agent_step: int = 1
  updates_per_agent_step_from_latents: Optional[int] = None
  batch_size: int = 128
  gamma: float = 0.99
  evaluation_period: int = 10_000
  evaluation_episodes: int = 10
  draws_per_block: int = 1
  conversion_batch_size: int = 32
  calibration_latents: int = 1024
  summary_period: int = 100
  checkpoint_period: int = 10_000
  actors_ahead_agent_steps: int = 500
  variables_period_seconds: float = 1.0
  variables_limit_seconds: float = 60.0
  reconnect_seconds: float = 600.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      is_count = field.type is int or (field.type == Optional[int] and value is not None)
      if is_count and (not isinstance(value, int) or value < 1):
        raise ValueError(f'Experiment.{field.name} is {value!r}; give a whole number, at least 1.')
      if field.name.endswith('_seconds') and not 0 < value < math.inf:
        raise ValueError(f'Experiment.{field.name} is {value!r}; give seconds, more than 0.')
      if field.name.endswith('_fn') and value is not None and not _makes(value):
        raise ValueError(
          f'Experiment.{field.name} is {value!r}; bind what makes it, by its name with @ before '
          'and no () behind, as in @AtStep.'
        )
    if self.updates_per_agent_step_from_latents is not None and not self.store_latents:
      raise ValueError(
        'Experiment.updates_per_agent_step_from_latents is '
        f'{self.updates_per_agent_step_from_latents}, but with Experiment.store_latents = False '
        'nothing is ever learned from latents: bind None, or store_latents = True.'
      )

  def updates(self, from_latents: bool) -> int:
    """Updates per agent step in this phase."""
    after = self.updates_per_agent_step_from_latents
    return after if from_latents and after is not None else self.updates_per_agent_step

  def lower_builder(self, environment):
    """Returns a builder, without arguments, of encoders for this environment's images."""
    image_shape = self.augmentation_fn().output_shape(environment.observation_spec().shape)
    return functools.partial(self.lower_fn, image_shape)

  def agent(self, environment, updates):
    """Builds the agent for `environment`; `updates` is the int64 variable that it counts in."""
    _, action_spec, time_step_spec = spec_utils.get_tensor_specs(environment)
    return self.agent_fn(
      time_step_spec,
      action_spec,
      lower_fn=self.lower_builder(environment),
      augmentation=self.augmentation_fn(),
      freeze_up_to=self.freeze_up_to,
      train_step_counter=updates,
    )

  def transfer(self, agent):
    """Has an agent's encoders start as another run left its own, if this experiment says so.

    Raises:
      ValueError: if that run cannot be read, or had another encoder.
    """
    if self.transfer_from is not None:
      transfer.load(agent.encoder, self.transfer_from)
      variables.copy(agent.encoder, agent.target_encoder)

  def replay_config(self, environment) -> tables.ReplayConfig:
    """What replay holds for `environment`; renders nothing and needs no agent."""
    height, width, channels = environment.observation_spec().shape
    action_spec = environment.action_spec()
    lower, _ = self.lower_builder(environment)().cut(self.freeze_up_to)
    config = tables.ReplayConfig(
      frame_shape=(height, width, channels // environment.frame_stack),
      frame_stack=environment.frame_stack,
      action_shape=tuple(action_spec.shape),
      action_dtype=action_spec.dtype.name,
      latent_size=lower.latent_size,
    )
    return dataclasses.replace(config, latents_dtype=self.codec(config).stored_spec.dtype.name)

  def codec(self, config: tables.ReplayConfig) -> codecs.Codec:
    """A codec for the latents of a run with this replay, not yet calibrated."""
    return self.codec_fn((config.stored_crops, config.latent_size))


def replay_config() -> tables.ReplayConfig:
  """What replay holds in the experiment that gin describes, for a server that trains nothing."""
  experiment = Experiment()
  environment = experiment.environment_fn()
  try:
    return experiment.replay_config(environment)
  finally:
    environment.close()
