"""A reader's own methods in the papers' tables: where they come from, how they are checked, built and measured."""
