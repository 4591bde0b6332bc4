"""Who drives which run: one file per way of finding the processes that do."""
