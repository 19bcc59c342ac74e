"""`python -m stillhouse`."""

from stillhouse.cli import main

main()
