"""Controlled studies: commands that train, score and write their page in docs."""
