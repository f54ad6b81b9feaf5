"""One CNI call on one attachment, from the checked call to its answer."""
