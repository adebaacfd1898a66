"""Reinforcement learning on rollouts of the live policy: PPO and GRPO, and the loop that runs them.

An algorithm (`protocol.OnlineAlgorithm`) says which models learn and what they learn from a batch
of rewarded rollouts. The loop does the rest. `optimize` is the part that both algorithms share:
minibatches, forward passes, optimizer steps.
"""
