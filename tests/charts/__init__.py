"""Charts without a cluster: what Helm makes of them, and what it refuses."""
