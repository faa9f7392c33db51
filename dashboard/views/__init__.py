"""One file per page; page.py lists them."""
