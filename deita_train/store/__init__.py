"""The store: artefacts and their keys, locks, atomic writing, and the record of a run."""
