"""Corpora to manifests: one small file a corpus (raw folder -> entries), one runner that checks and writes them.

`registry.py` knows the corpora, `writing.py` runs one, `reporting.py` says what came out and what was left out and why.
"""
