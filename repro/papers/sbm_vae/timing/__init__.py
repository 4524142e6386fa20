"""Seconds of joint sampling against the number of modalities: Figure 27."""
