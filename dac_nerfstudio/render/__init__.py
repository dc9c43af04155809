"""Pictures to show: a flight, a wipe, strips and a mosaic from a scene's finished runs, for papers and READMEs."""
