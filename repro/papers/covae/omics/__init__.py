"""Omics: Tables 1 to 3 and Figure 9."""
