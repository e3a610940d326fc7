"""What runs and measures segstream: servers for tests, benchmarks, settings of its neighbours."""
