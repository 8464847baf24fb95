"""swann inside other libraries. What needs a library is an extra.

::

    candidates.py   what every retrieval layer needs besides its library
    keras_rs.py     a retrieval layer for Keras and Keras-RS: the extra `keras`
"""
