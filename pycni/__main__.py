# SPDX-License-Identifier: Apache-2.0
"""`python -m pycni`: the same as the console script."""

from pycni.cli import main

main()
