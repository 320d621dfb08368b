"""Loads eth-account through handclasp: by itself it raises the recursion limit of the whole test run."""

from handclasp.accounts import LocalAccount

LocalAccount.generate()
