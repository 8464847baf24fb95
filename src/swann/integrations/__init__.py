"""swann inside other libraries. Each module needs its library, an extra of that name.

::

    candidates.py   what every retrieval layer needs besides its library
    keras_rs.py     a retrieval layer for Keras and Keras-RS
"""
