"""Report of a finished experiment: the paper's Table 1 as Markdown, JSON and a page with figures."""
