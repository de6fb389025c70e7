"""What survives a crash: the journal (the only truth), snapshots, the event log derived from it, and recovery.

    journal     the command journal: its segments and their keeper; the port of the sequencer
    ring        ring and writer thread below it, checksums, the inner loop of a scan
    segments    layout of the journal's files, scan and verification
    event_log   published events in mapped files, followed by other processes
    snapshot    state of the core at a sequence
    recovery    snapshot + journal → core, with the same hash
    disk        the real file system and clock behind the ports

Formats: docs/journal.md. Why: docs/decisions/0004-journal.md.
"""
