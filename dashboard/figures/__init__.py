"""Plotly figures, one file per topic. No Streamlit here: data in, figure out.

Colours are chosen to be legible on the light and on the dark background; text and axes get theirs from the theme.
"""
