"""Methods that select rows: the Repr Filter and what it is compared with."""
