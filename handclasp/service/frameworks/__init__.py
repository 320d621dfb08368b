"""Who is signed in, in the manner of each framework; every module loads its own only.

================  ====================================================================
`.starlette`      for Starlette and FastAPI: a callable, also as a dependency
`.quart`          a decorator
`.django`         a decorator for async views
================  ====================================================================
"""
