"""What is derived from a finished model run beside its recalls: each is a module, and a line of `shown.ANALYSES`.

ERS alone needs no model and no images: it follows from the cells, whenever results are assembled.
"""
