"""Backbones without their last layer, and trained models as files."""
