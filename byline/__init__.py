"""Byline's front door: the command line, the settings, the supervisor and the one place that wires the parts."""
