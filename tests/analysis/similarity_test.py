"""Tests of similarity, against second implementations from covariances and kernels."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from seer_tf.analysis import similarity

MEASURES = [similarity.linear_cka, similarity.svcca, similarity.pwcca]


def reference_cka(x, y):
  """From HSIC of kernels [N, N], centred by the matrix H = I - 1/N."""
  centre = np.eye(len(x)) - 1.0 / len(x)
  hsic = lambda k, other: np.trace(k @ centre @ other @ centre)
  k, other = x @ x.T, y @ y.T
  return hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))


def reference_cca(x, y):
  """Correlations and directions of x from the eigenvectors of Cxx^-1 Cxy Cyy^-1 Cyx."""
  x, y = x - x.mean(0), y - y.mean(0)
  inverse = lambda matrix: np.linalg.pinv(matrix, rcond=1e-9)
  product = inverse(x.T @ x) @ (x.T @ y) @ inverse(y.T @ y) @ (y.T @ x)
  values, vectors = np.linalg.eig(product)
  order = np.argsort(-values.real)
  rank = min(np.linalg.matrix_rank(x, 1e-6), np.linalg.matrix_rank(y, 1e-6))
  chosen = order[:rank]
  return np.sqrt(np.clip(values.real[chosen], 0, 1)), x @ vectors.real[:, chosen]


def reference_svcca(x, y, variance=0.99):
  def reduced(matrix):
    matrix = matrix - matrix.mean(0)
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = next(k for k in range(1, len(values) + 1) if values[:k].sum() >= variance * values.sum())
    return matrix @ vectors[:, :kept]

  return np.mean(reference_cca(reduced(x), reduced(y))[0])


def reference_pwcca(x, y):
  correlations, variates = reference_cca(x, y)
  x = x - x.mean(0)
  weights = [
    sum(abs(variate @ column) for column in x.T) / np.linalg.norm(variate) for variate in variates.T
  ]
  return np.dot(weights, correlations) / np.sum(weights)


REFERENCES = list(zip(MEASURES, [reference_cka, reference_svcca, reference_pwcca]))


def rotation(rng, size):
  return np.linalg.qr(rng.normal(size=(size, size)))[0]


def related(rng, n, width_x, width_y, noise):
  """Two representations that share two directions, more or less."""
  common = rng.normal(size=(n, 2))
  return [
    common @ rng.normal(size=(2, width)) + noise * rng.normal(size=(n, width)) + rng.normal()
    for width in (width_x, width_y)
  ]


@pytest.mark.parametrize('measure, reference', REFERENCES)
@hypothesis.given(
  seed=st.integers(0, 2**32 - 1),
  n=st.integers(20, 80),
  widths=st.tuples(st.integers(2, 6), st.integers(0, 4)),
  noise=st.floats(0.05, 5),
)
def test_agrees_with_a_second_implementation(measure, reference, seed, n, widths, noise):
  x, y = related(np.random.default_rng(seed), n, widths[0], widths[0] + widths[1], noise)
  assert measure(x, y) == pytest.approx(reference(x, y), abs=1e-6)


@hypothesis.given(seed=st.integers(0, 2**32 - 1), widths=st.tuples(*[st.integers(2, 4)] * 2))
def test_pwcca_weighs_by_the_narrower(seed, widths):
  narrow, wide = related(np.random.default_rng(seed), 60, widths[0], sum(widths), 1.0)
  expected = pytest.approx(reference_pwcca(narrow, wide), abs=1e-6)
  assert similarity.pwcca(wide, narrow) == similarity.pwcca(narrow, wide) == expected


@hypothesis.given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 12), width=st.integers(13, 40))
def test_cka_of_more_features_than_examples(seed, n, width):
  rng = np.random.default_rng(seed)
  x, y = rng.normal(size=(n, width)), rng.normal(size=(n, width + 3))
  assert similarity.linear_cka(x, y) == pytest.approx(reference_cka(x, y), abs=1e-9)


@pytest.mark.parametrize('measure', MEASURES)
@hypothesis.given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6))
def test_one_for_itself_rotated_scaled_and_moved(measure, seed, scale):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(60, 5)) * [1, 2, 3, 4, 5]
  same = [x, x @ rotation(rng, 5), scale * x, x + rng.normal(size=5), x.astype(np.float32)]
  for y in same:
    assert measure(x, y) == pytest.approx(1.0, abs=1e-5)


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_only_cca_ignores_any_invertible_map(seed):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(200, 3))
  y = x * [1.0, 10.0, 100.0]
  assert similarity.pwcca(x, y) == pytest.approx(1.0, abs=1e-6)
  assert similarity.svcca(x, y, variance=1.0) == pytest.approx(1.0, abs=1e-6)
  assert similarity.linear_cka(x, y) < 0.8


@pytest.mark.parametrize('measure', MEASURES)
def test_near_zero_for_independent_representations(measure):
  rng = np.random.default_rng(0)
  assert measure(rng.normal(size=(20_000, 4)), rng.normal(size=(20_000, 4))) < 0.03


@pytest.mark.parametrize('measure, reference', REFERENCES)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_rank_deficient(measure, reference, seed):
  """Doubled, summed and constant columns change the rank of nothing."""
  rng = np.random.default_rng(seed)
  x, y = related(rng, 50, 3, 4, 0.5)
  deficient = np.concatenate([x, x[:, :1] + x[:, 1:2], np.full((50, 2), 7.3)], axis=1)
  assert measure(deficient, y) == pytest.approx(reference(deficient, y), abs=1e-6)
  assert measure(deficient, deficient @ rotation(rng, 6)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize('measure', MEASURES)
def test_constants(measure):
  x = np.random.default_rng(0).normal(size=(10, 3))
  constant = np.full((10, 2), np.float32(0.1))
  assert measure(constant, constant + 1) == 1.0
  assert measure(x, constant) == 0.0
  assert measure(constant, x) == 0.0


def test_pwcca_weighs_by_the_first():
  """Of two directions one is shared; it counts as much as it makes up of x."""
  rng = np.random.default_rng(1)
  shared, own, other = np.linalg.qr(rng.normal(size=(4000, 3)))[0].T
  x = np.stack([9 * shared, own], axis=1)
  y = np.stack([shared, other], axis=1)
  assert similarity.pwcca(x, y) == pytest.approx(0.9, abs=0.02)
  assert similarity.pwcca(y, x) == pytest.approx(0.5, abs=0.02)


def test_svcca_leaves_out_what_explains_little():
  rng = np.random.default_rng(2)
  shared, noise_x, noise_y = rng.normal(size=(3, 2000, 2))
  x = np.concatenate([shared, 1e-3 * noise_x], axis=1)
  y = np.concatenate([shared, 1e-3 * noise_y], axis=1)
  assert similarity.svcca(x, y) == pytest.approx(1.0, abs=1e-3)
  assert similarity.svcca(x, y, variance=1.0) < 0.6


@pytest.mark.parametrize('measure', MEASURES)
@pytest.mark.parametrize(
  'x, y, message',
  [
    (np.ones((3, 2)), np.ones((4, 2)), 'x has 3 examples and y has 4'),
    (np.ones((1, 2)), np.ones((1, 2)), r'x has shape \(1, 2\)'),
    (np.ones((3, 2)), np.ones((3, 2, 2)), r'y has shape \(3, 2, 2\)'),
    (np.ones((3, 0)), np.ones((3, 2)), r'x has shape \(3, 0\)'),
    (np.array([[1.0], [np.nan]]), np.ones((2, 2)), 'x holds values'),
  ],
)
def test_what_cannot_be_compared_is_refused(measure, x, y, message):
  with pytest.raises(ValueError, match=message):
    measure(x, y)


@pytest.mark.parametrize('variance', [0.0, -1.0, 1.1])
def test_svcca_refuses_a_share_outside_0_to_1(variance):
  with pytest.raises(ValueError, match=f'variance is {variance}'):
    similarity.svcca(np.eye(3), np.eye(3), variance)
