"""Reinforcement learning on step rewards from an easy-trained evaluator: one algorithm, one file.

`shaping` turns step scores into rewards, `advantages` rewards into advantages, `rollouts` draws and
scores completions, and each algorithm (`ppo`) reads all three. A new algorithm is a new file beside
`ppo` and an entry in `Rl.algorithm`.
"""
