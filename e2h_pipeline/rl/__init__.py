"""Training of `rl_policy`: reinforcement learning against the easy evaluator, training in rounds.

`algorithms` has the protocol of an algorithm and its argument. `online/` learns from each batch of
rollouts at once (PPO, GRPO), `rounds/` from pools of solutions that are drawn, chosen and learned
round by round (ReST-EM, preference training). Both share `questions`, `rollouts`, `metrics`,
`guards` and `progress`. A new algorithm is one file and one line in the registry.
"""
