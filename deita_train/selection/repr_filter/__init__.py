"""The Repr Filter (paper 2.5): score first, diversity aware, with exact sequential semantics."""
