"""One file a revision, named after it; `stablequeue.catalogue.revisions` lists them too."""
