"""A real Apache Kafka for tests and benchmarks, from Maven Central."""
