"""What is kept: records, the ports to read and write them, and one folder per database."""
