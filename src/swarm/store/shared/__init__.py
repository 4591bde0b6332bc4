"""Files that every machine of one database can get: packages, locks and artifacts."""
