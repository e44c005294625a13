"""The collector, the learner and the loop that ties them together."""
