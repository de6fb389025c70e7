"""Byline's front door: the command line, the settings, the supervisor and its processes, where the parts are wired."""
