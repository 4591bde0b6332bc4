"""``${...}``: finding, checking and evaluating expressions in the strings of a definition."""
