"""A page on this machine: drop scans, see what was recognised, watch them being enhanced, look at the report, save."""
