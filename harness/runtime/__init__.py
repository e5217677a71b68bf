"""Parts of an execution: checkpoints, saves, hooks, the event loop, and the rules that both patterns share.

Applications need nothing from here; :mod:`harness` and the modules beside it have the public names.
"""
