//go:build linux && cgo && !race

// A plain `go build` gives one static binary, as the contract says, also where a C compiler
// is found and Go would link the C library dynamically for its resolver. Go's own resolver
// is the one in use (the directive below), so the C library's is left out of the link:
// statically it would want its shared half at run time, and the linker warns of that. So is
// its list of users and groups, which a library links (os/user) and nobody here asks. A
// system without the static half of its C library builds with CGO_ENABLED=0.

//go:debug netdns=go
package main

/*
#cgo LDFLAGS: -static
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <sys/types.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res) { return EAI_FAIL; }
void freeaddrinfo(struct addrinfo *res) {}
int getpwnam_r(const char *n, struct passwd *p, char *b, size_t l, struct passwd **r) { *r = 0; return 0; }
int getpwuid_r(uid_t u, struct passwd *p, char *b, size_t l, struct passwd **r) { *r = 0; return 0; }
int getgrnam_r(const char *n, struct group *g, char *b, size_t l, struct group **r) { *r = 0; return 0; }
int getgrgid_r(gid_t i, struct group *g, char *b, size_t l, struct group **r) { *r = 0; return 0; }
int getgrouplist(const char *user, gid_t group, gid_t *groups, int *n) { *n = 0; return -1; }
*/
import "C"
