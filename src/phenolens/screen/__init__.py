"""What was done to which well: checked tables, their readers, and a simulated screen."""
