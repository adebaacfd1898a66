"""Where the pool of benchmark samples comes from: our policy, or files of other people."""
