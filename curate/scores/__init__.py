"""Every score by name: on arrays (`curate.score`) and on pools (`curate score`), which keep them as columns."""
