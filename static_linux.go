//go:build linux && cgo && !race

// A plain `go build` gives one static binary, as the contract says, also where a C compiler
// is found and Go would link the C library dynamically for its resolver. Go's own resolver
// is the one in use (the directive below), so the C library's is left out of the link:
// statically it would want its shared half at run time, and the linker warns of that. A
// system without the static half of its C library builds with CGO_ENABLED=0.

//go:debug netdns=go
package main

/*
#cgo LDFLAGS: -static
#include <netdb.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res) { return EAI_FAIL; }
void freeaddrinfo(struct addrinfo *res) {}
*/
import "C"
