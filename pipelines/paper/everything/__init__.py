"""Every item of the three papers: its experiment is run, and one page has all results."""
