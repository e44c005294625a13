"""How similar two representations of the same examples are: linear CKA, SVCCA, PWCCA.

All three compare activations x float [N, Dx] and y float [N, Dy] of the same N examples, in two
networks or in one network at two times, and give one number from 0 to 1:

                1 under translations and            symmetric   N must be
    linear_cka  orthogonal maps, scaling of all     yes         at least 2; better a few hundred
    svcca       the same; invertible linear maps    yes         well beyond the directions kept
                while no direction is left out
    pwcca       invertible linear maps of y;        no          well beyond rank x + rank y
                those of x change its weights

Canonical correlations of two unrelated representations rise to 1 as rank x + rank y nears N, so
with few examples SVCCA and PWCCA say little; linear CKA stays meaningful with fewer.

A column that does not vary adds nothing. If nothing varies in x and y, both say the same, nothing:
the similarity is 1. If that is so in one of them alone, it is 0.
"""

from typing import Tuple

import gin
import numpy as np

# Singular values below this fraction of the largest, times max(N, D), are rounding errors, as in
# `numpy.linalg.matrix_rank`. Activations are float32, whatever they are computed in here.
_EPSILON = float(np.finfo(np.float32).eps)


@gin.configurable
def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
  """Centred kernel alignment with linear kernels (Kornblith et al. 2019, section 3).

      CKA = ||Y' X||_F^2 / (||X' X||_F ||Y' Y||_F),   X and Y with centred columns

  Args:
    x: float [N, Dx].
    y: float [N, Dy].

  Returns:
    The similarity, in [0, 1].

  Raises:
    ValueError: unless both are matrices of finite numbers over the same 2 or more examples.
  """
  x, y = _centred(x, y)
  if not (x.any() and y.any()):
    return _of_constants(x, y)
  if max(x.shape[1], y.shape[1]) <= len(x):
    cross, own = np.sum((y.T @ x) ** 2), np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
  else:  # The same numbers through Gram matrices [N, N], which are smaller here.
    gram_x, gram_y = x @ x.T, y @ y.T
    cross, own = np.sum(gram_x * gram_y), np.linalg.norm(gram_x) * np.linalg.norm(gram_y)
  return float(np.clip(cross / own, 0.0, 1.0))


@gin.configurable
def svcca(x: np.ndarray, y: np.ndarray, variance: float = 0.99) -> float:
  """Mean canonical correlation of the main directions (Raghu et al. 2017, section 2).

  Each representation is reduced to the fewest singular directions that explain `variance` of it;
  the similarity is the mean of the min(kx, ky) canonical correlations of what is left.

  Args:
    x: float [N, Dx].
    y: float [N, Dy].
    variance: share of the squared singular values that is kept, in (0, 1].

  Returns:
    The similarity, in [0, 1].

  Raises:
    ValueError: as `linear_cka`, or for another `variance`.
  """
  if not 0.0 < variance <= 1.0:
    raise ValueError(f'variance is {variance}; give a share above 0 and up to 1.')
  x, y = _centred(x, y)
  if not (x.any() and y.any()):
    return _of_constants(x, y)
  return float(np.mean(_canonical(_basis(x, variance), _basis(y, variance))[1]))


@gin.configurable
def pwcca(x: np.ndarray, y: np.ndarray) -> float:
  """Canonical correlations weighted by what they account for (Morcos et al. 2018, section 2.3).

      sum_i a_i rho_i / sum_i a_i,   a_i = sum_j |<h_i, x_j>|

  with canonical correlations rho_i, canonical variates h_i of x and centred columns x_j. As in the
  authors' code the variates are those of y where y has the lower rank.

  Args:
    x: float [N, Dx], whose directions weigh.
    y: float [N, Dy].

  Returns:
    The similarity, in [0, 1].

  Raises:
    ValueError: as `linear_cka`.
  """
  x, y = _centred(x, y)
  if not (x.any() and y.any()):
    return _of_constants(x, y)
  bases = _basis(x), _basis(y)
  if bases[1].shape[1] < bases[0].shape[1]:
    x, bases = y, bases[::-1]
  variates, correlations = _canonical(*bases)
  weights = np.sum(np.abs(variates.T @ x), axis=1)
  return float(np.clip(weights @ correlations / np.sum(weights), 0.0, 1.0))


def _centred(x: np.ndarray, y: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
  """Both with columns of mean 0 and a largest entry of 1, or all 0 where nothing varies."""
  matrices = []
  for name, activations in (('x', x), ('y', y)):
    matrix = np.asarray(activations, np.float64)
    if matrix.ndim != 2 or len(matrix) < 2 or not matrix.shape[1]:
      raise ValueError(
        f'{name} has shape {matrix.shape}; give activations [N, features] of at least 2 examples.'
      )
    if not np.all(np.isfinite(matrix)):
      raise ValueError(f'{name} holds values that are infinite or not a number.')
    size = np.max(np.abs(matrix), axis=0)
    deviation = matrix - np.mean(matrix, axis=0)
    # Constant, but for rounding.
    deviation[:, np.max(np.abs(deviation), axis=0) <= _EPSILON * size] = 0.0
    largest = np.max(np.abs(deviation))
    matrices.append(deviation / largest if largest else deviation)
  x, y = matrices
  if len(x) != len(y):
    raise ValueError(f'x has {len(x)} examples and y has {len(y)}; give activations of the same.')
  return x, y


def _of_constants(x: np.ndarray, y: np.ndarray) -> float:
  return float(not x.any() and not y.any())


def _basis(matrix: np.ndarray, variance: float = 1.0) -> np.ndarray:
  """Orthonormal basis [N, k] of the main directions of centred columns; k is 1 to the rank."""
  left, values, _ = np.linalg.svd(matrix, full_matrices=False)
  rank = int(np.sum(values > values[0] * max(matrix.shape) * _EPSILON))
  if variance < 1.0:
    explained = np.cumsum(values[:rank] ** 2) / np.sum(values[:rank] ** 2)
    rank = min(rank, int(np.searchsorted(explained, variance)) + 1)
  return left[:, : max(rank, 1)]


def _canonical(x: np.ndarray, y: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
  """Canonical variates [N, k] of the first of two orthonormal bases, and their correlations [k]."""
  directions, correlations, _ = np.linalg.svd(x.T @ y, full_matrices=False)
  return x @ directions, np.clip(correlations, 0.0, 1.0)
