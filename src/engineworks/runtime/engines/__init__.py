"""One file per runtime; the listing is the registry, a file is imported at first use.

Each file has `open_session(folder, manifest, threads) -> Session`; one that says `ON_GPU = True`
takes `device`, the number of the GPU, too.
"""
