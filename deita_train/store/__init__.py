"""The store of artefacts: content keys, locks, atomic writing, publishing."""
