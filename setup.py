"""Packaging of seer_tf; `make lock` compiles the ranges below into requirements.txt.

Python 3.11 with the locked versions is what the tests run on. Some caps matter more than they look:
mujoco 4 breaks every dm_control task, opencv 4.11 pulls in NumPy 2, with which TensorFlow 2.15 does
not import, setuptools 82 has no pkg_resources, which the tensorboard command imports (80.9 to 81
warn about it), and Reverb 0.14 has wheels for Python 3.9 to 3.11 on Linux x86-64 only.
"""

import setuptools

REQUIRES = [
  'tensorflow>=2.15.1,<2.16',
  'keras>=2.15,<2.16',
  'tensorflow-probability>=0.23,<0.24',
  'tf-agents[reverb]>=0.19,<0.20',
  'dm-reverb[tensorflow]>=0.14,<0.15',
  'tensorboard>=2.15,<2.16',
  'setuptools>=70.1,<80.9',
  'numpy>=1.23.5,<2',
  'protobuf>=4.25,<5',
  'gin-config>=0.5,<0.6',
  'absl-py>=2.1,<3',
  'tqdm>=4.66,<5',
  'dm_control>=1.0.28,<2',
  'dm-tree>=0.1.8,<0.2',
  'mujoco>=3.3,<4',
  'gym-notices>=0.0.4,<1',
  'gymnasium>=1.1,<2',
  'ale-py>=0.11,<0.13',
  'opencv-python-headless>=4.10,<4.11',
]

TEST_REQUIRES = [
  'hypothesis>=6.100,<7',
  'packaging>=23,<27',
  'portpicker>=1.6,<2',
  'psutil>=5.9,<8',
  'pytest>=8,<10',
  'pytest-xdist>=3.6,<4',
  'ruff>=0.17,<0.18',
  'scipy>=1.11,<2',
]

# What only some environments need, installed by its name: pip install -e ".[box2d]". The lock does
# without; pygame and MuJoCo, which do the drawing, are there already.
EXTRAS = {
  'box2d': ['box2d>=2.3.10,<2.4'],  # Gymnasium's CarRacing, LunarLander, BipedalWalker
  'mujoco': ['imageio>=2.14.1,<3'],  # Gymnasium's HalfCheetah, Hopper and the like
}

setuptools.setup(
  name='seer_tf',
  version='0.1.0',
  description='SEER for TF-Agents: freeze the lower encoder, replay its latents',
  packages=setuptools.find_packages(include=['seer_tf', 'seer_tf.*', 'launch', 'launch.*']),
  python_requires='>=3.9,<3.12',
  install_requires=REQUIRES,
  extras_require={'test': TEST_REQUIRES, **EXTRAS},
)
