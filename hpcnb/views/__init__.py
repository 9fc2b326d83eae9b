"""What is shown of clusters, work and logs, as text and as HTML: pure, from one snapshot and the time."""
