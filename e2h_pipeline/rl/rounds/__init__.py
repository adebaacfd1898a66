"""Training in rounds: ReST-EM and preference training, and the loop that runs them.

An algorithm (`protocol.RoundsAlgorithm`) says what is chosen of the solutions that a policy drew,
and what is learned from it. `loop` runs the rounds, `drawing` draws and scores their pools, `pairs`
and `preference_losses` are for preference training.
"""
