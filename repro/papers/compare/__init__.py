"""The papers' models beside each other on the same data, which no paper shows."""
