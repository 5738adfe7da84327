"""The commands as Python functions, one file each.

``import moe_codesign as mc`` gives them as ``mc.search``, ``mc.predict`` and so on.
"""
