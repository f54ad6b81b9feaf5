# SPDX-License-Identifier: Apache-2.0
"""The program that tests run inside namespaces, to make traffic there. Standard library only.

`support.flows` starts it (`python -IS`, which finds no installed package) and reads what it prints:
JSON, a document per line.
"""
