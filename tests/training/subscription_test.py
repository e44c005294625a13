"""Which errors are a lost server's, and what comes of them."""

import errno
import time

import pytest
import reverb
import tensorflow as tf

from seer_tf.replay import server
from seer_tf.training import subscription


@pytest.mark.parametrize(
  'error, is_about_server',
  [
    (TimeoutError('no answer'), True),
    (RuntimeError('Unable to confirm that items were written.'), True),
    (reverb.errors.DeadlineExceededError('ServerInfo'), True),
    (tf.errors.UnavailableError(None, None, 'Socket closed'), True),
    (tf.errors.UnknownError(None, None, 'UnavailableError: Socket closed [Op:MakeIterator]'), True),
    (tf.errors.InvalidArgumentError(None, None, 'A loss is infinite or not a number.'), False),
    (server.ReplayServerError('Replay server a:1 was started with another configuration'), False),
    (OSError(errno.ENOSPC, 'No space left on device'), False),
    (NotImplementedError('of an environment'), False),
  ],
)
def test_errors_of_a_lost_server(error, is_about_server):
  assert subscription.is_about_server(error) == is_about_server


def test_a_server_that_stays_away_is_one_line():
  trouble = subscription.Trouble(reverb.Client('localhost:1'), reconnect_seconds=1)
  start, said = time.monotonic(), []
  with pytest.raises(TimeoutError, match='localhost:1: no progress for 1 s.*last error was: gone'):
    trouble.wait(TimeoutError('gone'), progress=0, say=said.append)
  assert time.monotonic() - start < 20
  assert said == ['gone Trying again, for up to 1 s.']


def test_what_a_dataset_has_met_is_one_line():
  """As TensorFlow tells it: a page, in the middle of which is what was raised."""

  def fail():
    raise TimeoutError('Replay server a:1, table pixels: no batch; is it running?')

  dataset = tf.data.Dataset.range(1).map(lambda _: tf.py_function(fail, [], tf.float32))
  with pytest.raises(tf.errors.OpError) as raised:
    next(iter(dataset))
  assert '\n' in str(raised.value)
  assert subscription.in_words(raised.value) == (
    'Replay server a:1, table pixels: no batch; is it running?'
  )
  assert subscription.in_words(TimeoutError()) == 'TimeoutError'
