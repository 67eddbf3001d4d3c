"""TensorRT and TensorRT-RTX behind the backend protocol: one module, three drivers.

``bindings`` finds the Python bindings and says what they have; ``builder`` builds with them, ``trtexec`` where only
that program is there; ``engine_info`` is what is known of an engine, ``session`` runs one; ``cuda`` is the driver.
Importing this package imports none of them.
"""
