"""Tables of all kinds, a module each, read strictly: errors name the file, the row and the column."""
