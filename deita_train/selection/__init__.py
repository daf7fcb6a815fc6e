"""The Repr Filter and the other methods that choose rows."""
