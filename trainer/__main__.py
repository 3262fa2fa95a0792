"""`python -m trainer` is `apprentice`."""

from trainer.cli import main

main()
