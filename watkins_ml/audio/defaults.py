"""The frontend of the original study, as plain numbers: whoever only prints them waits for no library."""

SAMPLE_RATE = 16_000
"""Hz."""
SECONDS = 4.0
"""The length of a window; the centres of its frames span a hop less."""
FRAMES_A_SECOND = 100
MELS = 128
RATES = (1_000, 200_000)
"""Hz, the lowest and the highest."""
MOST_MELS = 1024
MOST_FRAMES = 10_000
