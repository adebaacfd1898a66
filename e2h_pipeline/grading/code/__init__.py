"""Unit tests as the checker of programs: a sandbox, the forms of tests, and the grader."""
