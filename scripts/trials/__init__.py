"The trials of `make trust`: what can go wrong around a run, each with an outcome."
