"""The same engine on several machines: Ray schedules, repeats, places and carries; nothing of that is written here."""
