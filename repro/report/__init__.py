"""Tables and figures as Markdown, LaTeX, PDF and PNG; nothing here knows a paper."""
