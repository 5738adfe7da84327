"""The host's grouped matmul: ``declaration.py`` says what it can do, ``matmul.py`` runs it through XLA."""
