"""What is talked about: shapes, routings, workloads, times, pairs. Nothing here computes a time."""
