"""What every room uses: errors, whole-file writes, progress, worker processes, channel colours."""
