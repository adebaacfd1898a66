"""Training in rounds: ReST-EM and preference training, and the loop that runs them.

An algorithm (`protocol.RoundsAlgorithm`) chooses among the solutions that a policy drew, and has
the loss on them. `loop` runs the rounds, `drawing` draws and scores their pools, `pairs` and
`preference_losses` are for preference training.
"""
