"""MHD: Table 8."""
