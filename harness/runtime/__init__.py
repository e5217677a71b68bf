"""Parts of an execution: checkpoints, saves, hooks, the event loop, and the rules that both patterns share.

Applications do not need this package; :mod:`harness` and the modules next to it have the public names.
"""
