"""ScaNN's configuration text to swann's settings and back.

A ScaNN searcher prints its configuration as a text proto (``searcher.config()``), and programs
store it. `config_from_text` reads it; `config_to_text` writes it as ScaNN does, field by field,
for everything that ScaNN's builder can say.

Fields that swann does not know are refused by path, never skipped, except for those that cannot
change an answer much (machines, file names, tolerances of training, how lookup tables are
rounded): they are listed beside what is read. A field that is left out has ScaNN's own default,
which need not be the default of ScaNN's builder.

What reads otherwise than in ScaNN:

- ``use_residual_quantization``: with a tree swann codes residuals, under ``squared_l2`` too unless
  whole datapoints lose less there.
- ``query_spilling.max_spill_centers`` over ``num_children`` means all leaves.

What swann adds to the text, in fields of ScaNN's that its builder leaves alone:

- ``"CosineDistance"`` is swann's ``"cosine"``.
- ``clustering_seed`` is the seed, where it is not 0.
- ``hash.projection`` is a projection without a tree.

Seed and projection of an exact index without a tree change nothing, and are not written.
"""

from swann.compat.scann_config.read import config_from_message, config_from_text
from swann.compat.scann_config.write import config_to_text

__all__ = ["config_from_message", "config_from_text", "config_to_text"]
