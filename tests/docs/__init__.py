"""README's reference tables, made from the code. `python -m tests.docs` writes them anew; the tests compare."""
