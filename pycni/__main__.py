"""`python -m pycni`: the same as the console script."""

from pycni.cli import main

main()
