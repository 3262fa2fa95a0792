"""`python -m bot` is `apprentice`."""

from bot.cli import main

main()
