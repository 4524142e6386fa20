"""CelebAMask-HQ: Tables 1 to 3 and 11, Figures 10 and 33 to 37."""
