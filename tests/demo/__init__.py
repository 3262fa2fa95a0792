"""`make demo` (`python -m tests.demo`): the reviewing half, from a push to votes, with a real model on this machine.

GitLab is the tests' stand-in; all else is what an operator runs. It stands here because `bot` imports no test code.
"""
