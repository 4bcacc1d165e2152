package config

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

var (
	sourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	plainName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$`)
	topicName  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
	pathShape  = regexp.MustCompile(`^/[A-Za-z0-9._~!$&'()*+,;=:@/-]*$`)
)

// checks are the rules that a check tag names; each gives a cure and an error.
var checks = map[string]func(string) (string, error){
	"listen":   checkListen,
	"hostport": checkHostPort,
	"url":      checkURL,
	"target":   checkTarget,
	"cidr":     checkCIDR,
	"allow":    checkAllow,
	"path":     checkPath,
	"topic":    checkTopic,
	"key":      checkKey,
	"mail":     checkMail,
	"source": func(s string) (string, error) {
		return "lower case letters, digits, - and _, 63 at most, beginning with a letter or digit",
			matches(sourceName, s, "source name")
	},
	"name": func(s string) (string, error) {
		return "letters, digits, . _ : -, 100 at most", matches(plainName, s, "name")
	},
}

func matches(re *regexp.Regexp, s, what string) error {
	if !re.MatchString(s) {
		return fmt.Errorf("%q is no %s", s, what)
	}
	return nil
}

func checkListen(s string) (string, error) {
	cure := "write 127.0.0.1:8080, or :8080 for every address"
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return cure, fmt.Errorf("%q is no address with a port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return cure, fmt.Errorf("%q is no port", port)
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			return cure, fmt.Errorf("%q is no IP address", host)
		}
	}
	return "", nil
}

func checkHostPort(s string) (string, error) {
	cure := "write host:port"
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(s, " /@") {
		return cure, fmt.Errorf("%q is no host with a port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return cure, fmt.Errorf("%q is no port", port)
	}
	return "", nil
}

func checkURL(s string) (string, error) {
	cure := "write https://hooks.example.com"
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return cure, fmt.Errorf("%q is no http(s) URL", s)
	case u.User != nil:
		return cure, errors.New("holds a user name")
	case u.RawQuery != "" || u.Fragment != "":
		return cure, fmt.Errorf("%q has a query or a fragment", s)
	}
	return "", nil
}

// checkTarget is checkURL for one that is called: it may have a query.
func checkTarget(s string) (string, error) {
	u, err := url.Parse(s)
	if err == nil && u.Fragment == "" {
		u.RawQuery = ""
		s = u.String()
	}
	_, err = checkURL(s)
	return "write https://handler.example.com/hooks", err
}

func checkCIDR(s string) (string, error) {
	cure := "write 203.0.113.0/24 or 203.0.113.7"
	if _, err := netip.ParseAddr(s); err == nil && !strings.Contains(s, "%") {
		return "", nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return cure, fmt.Errorf("%q is no network", s)
	}
	if p.Masked() != p {
		return "write " + p.Masked().String(), fmt.Errorf("%q has bits beyond its mask", s)
	}
	return "", nil
}

func checkAllow(s string) (string, error) {
	if s == "provider" {
		return "", nil
	}
	cure, err := checkCIDR(s)
	if err != nil && cure != "" && !strings.ContainsAny(s, "./:") {
		cure = `write 203.0.113.0/24, 203.0.113.7 or provider`
	}
	return cure, err
}

func checkPath(s string) (string, error) {
	cure := "write /in/{source}, or a path such as /hooks/stripe"
	plain := strings.ReplaceAll(s, "{source}", "x")
	switch {
	case !pathShape.MatchString(plain):
		return cure, fmt.Errorf("%q is no path", s)
	case strings.Contains(plain, "//") || strings.Contains(plain, "/./") || strings.Contains(plain, "/../") ||
		strings.HasSuffix(plain, "/..") || strings.HasSuffix(plain, "/."):
		// Paths are matched raw and exactly; one that clients normalize is never hit.
		return cure, fmt.Errorf("%q holds an empty or dotted step", s)
	}
	return "", nil
}

func checkMail(s string) (string, error) {
	a, err := mail.ParseAddress(s)
	if err != nil || strings.ContainsAny(s, "\r\n") || !strings.Contains(a.Address, "@") {
		return "write ops@example.com, or Name <ops@example.com>", fmt.Errorf("%q is no mail address", s)
	}
	return "", nil
}

// loopback says whether a listen address is reachable from this machine alone.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
