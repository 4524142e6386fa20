"""From a specification to a run directory to a record, on this machine or on a cluster."""
