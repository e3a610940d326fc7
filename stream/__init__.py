"""Live segmentation of shoppers: events, features, segments, changes."""
