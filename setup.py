"""Which packages a wheel has: two source roots, and the space files, which lie at the top of a checkout.

The rest is in pyproject.toml, whose way of finding packages cannot add one that lies elsewhere.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(".", include=["moe_codesign*"]),
        *find_namespace_packages("kernels", include=["moe_kernels*"]),
        "moe_codesign.search_spaces",
    ],
    package_dir={"moe_kernels": "kernels/moe_kernels", "moe_codesign.search_spaces": "search_spaces"},
)
