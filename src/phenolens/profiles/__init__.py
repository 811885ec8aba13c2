"""From cells to wells to treatments; whitening and scores."""
