"""A process that is told to leave does, whatever becomes of the exception that tells it."""

import contextlib
import signal

import pytest

from seer_tf.training import checkpoints, leaving, loop
from tests.training import loop_test


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
  """Signals are handled as in a run; nothing of that stays."""
  before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
  monkeypatch.setattr(leaving, '_told', [])
  signal.signal(signal.SIGINT, signal.default_int_handler)
  leaving.on_signals()
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


def replaced(number):
  """As when a context's own error takes the place of the exception that a signal has raised."""
  try:
    signal.raise_signal(number)
  except BaseException as error:
    raise AssertionError('Nesting violated') from error


def test_a_signal_is_what_leaves():
  with pytest.raises(SystemExit) as raised, leaving.by_signal():
    replaced(signal.SIGTERM)
  assert raised.value.code == 143


def test_ctrl_c_is_what_leaves():
  with pytest.raises(KeyboardInterrupt), leaving.by_signal():
    replaced(signal.SIGINT)


def test_a_signal_whose_exception_was_dropped_is_what_leaves():
  with pytest.raises(SystemExit), leaving.by_signal(), contextlib.suppress(SystemExit):
    signal.raise_signal(signal.SIGTERM)


def test_other_errors_and_ignored_signals_are_left_alone():
  with pytest.raises(AssertionError, match='of its own'), leaving.by_signal():
    raise AssertionError('of its own')
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  leaving.on_signals()
  assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize('error', [AssertionError, RuntimeError])
def test_a_run_is_saved_all_the_same(root, tmp_path, monkeypatch, error):
  """A RuntimeError is what a lost server ends in, too."""

  def evaluate(run):
    try:
      replaced(signal.SIGTERM)
    except AssertionError as nesting:
      raise error(str(nesting)) from nesting

  monkeypatch.setattr(loop.Run, '_evaluate', evaluate)
  with pytest.raises(SystemExit) as raised:
    loop_test.live(root, str(tmp_path), ['Experiment.evaluation_period = 20'])
  assert raised.value.code == 143
  assert checkpoints.newest(str(tmp_path)) == 1
