"""Our own server: engines behind HTTP, `engineworks serve`. Needs the extra `[server]`.

A supervisor (`supervisor.py`) owns the listening socket, the worker processes and the one truth of
which engine has which name; a worker (`worker.py`) answers requests. Engines, images and tensors
are the runtime's; nothing here decodes a picture or a box by itself. Knows no training, no store
of runs and no registry.
"""
