"""What was done to which well: the checked screen table and one reader per layout."""
