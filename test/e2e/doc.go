// Package e2e holds the tests that run the built binary against a real redis-server and
// a real Apache Kafka broker, send it deliveries signed by code that shares nothing with
// the product, and read the result with kcat. `make e2e` runs them.
package e2e
