"""From folders, lists and benchmarks to tasks, and from an image's path to its pixels."""
