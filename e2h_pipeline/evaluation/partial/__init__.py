"""Judging solutions before they end: by share of tokens seen, and as a filter of the majority vote.

For evaluators that judge after every token (Nath et al. 2024). Two signals are compared: Q, the
cosine of the state with the goal, and the evaluator's own score at that token. With the control
`reward.contrastive_weight=0` that score is the plain model's.
"""
