// Package faults breaks things on purpose while signed load runs, heals them, and then
// checks from outside what was promised: the client's log against the archive against
// Kafka. It starts the built binary, a redis-server and a broker of its own, and takes
// what it does from a seed. `make faults T=5m SEED=7` runs it; a short run is part of
// `make test`; `make faults-sabotage` runs it on builds that are broken on purpose, which
// it must find out.
package faults
