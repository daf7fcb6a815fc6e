"""The selection methods that the Repr Filter is compared with."""
