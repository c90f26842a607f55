"""One meaning per colour in every figure; each is legible on a white and on a dark page."""

SOURCE = "#0072B2"  # blue, a domain
TARGET = "#D55E00"  # orange, a domain
SOURCE_ONLY = "#6E6E6E"  # grey, a method
SYMNETS = "#B5508F"  # purple, a method
BALANCED = "#009E73"  # green, a method
