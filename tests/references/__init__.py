"""Published losses written a second time, apart from the library.

Plain loops over Python numbers, formula by formula, from the papers. NoTerms here imports torch or
anything of the library, and nothing here is fast.
"""
