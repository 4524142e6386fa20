"""A paper for tests: a model that trains in no time, on data that is made on the spot."""
