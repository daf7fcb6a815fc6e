"""One thin file per stage: configuration and artefacts in, a component called, an artefact out."""
