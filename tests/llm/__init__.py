"""A regular package, because one of the same name may be installed (`llm`), which would hide a folder."""
