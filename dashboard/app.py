"""The dashboard's frame: navigation, and beside every page where the runs are kept.

Start it with `python -m streamlit run dashboard/app.py`. The pages are listed in page.py.
"""

import streamlit as st

from dashboard import page, warm_up


def main() -> None:
    """Draw the frame, then the page that the address names."""
    st.set_page_config(page_title="Deep generative models", page_icon=page.ICON, layout="wide")
    st.logo(page.LOGO, size="large", icon_image=page.ICON)
    chosen = st.navigation([*map(page.streamlit_page, page.PAGES), page.start_page_by_name()])
    warm_up.imports()
    with st.sidebar:
        page.store_note()
    chosen.run()


main()
