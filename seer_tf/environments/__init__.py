"""Simulators as TF-Agents PyEnvironments with stacked uint8 pixels."""
