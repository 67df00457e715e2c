"""The report of a study: from its folder to numbers, figures, tables and a page.

data --numbers (series, changes, perplexity, shares)--> sections, each with its figures --> page --> files
"""
