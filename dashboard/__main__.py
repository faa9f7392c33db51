"""`python -m dashboard [OPTIONS]`, those of `streamlit run`: imports what is slow before anyone asks for a page."""

from __future__ import annotations

import sys
from pathlib import Path

from streamlit.web import cli  # before the thread below, so that two imports never meet in one package

from dashboard import warm_up


def main() -> None:
    """Hand over to Streamlit's own command."""
    warm_up.imports()
    sys.argv = ["streamlit", "run", str(Path(__file__).with_name("app.py")), *sys.argv[1:]]
    cli.main()


main()
