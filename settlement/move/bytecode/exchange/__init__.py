"""Compiled Move bytecode; a package so that wheels carry it. `settlement.move.tools.compile` writes it."""
