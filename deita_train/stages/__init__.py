"""One thin file per kind of stage: it reads artefacts, calls a component, and leaves an artefact."""
