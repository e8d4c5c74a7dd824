"""Selectors: they decide, and do nothing else. No files, no torch, no tables.

A stream selector maps (state, batch with its neighbours and scores) to (decision, state); a subset selector ranks a
finished set of candidates. `registry` names them all, `checks` is the conformance suite that each of them passes.
"""
