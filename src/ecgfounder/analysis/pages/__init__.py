"""What every report of an analysis is made of: a page, charts, tables, its folder.

In: figures and tables. Out: HTML, SVG, Parquet and CSV.
"""
