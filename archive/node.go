package archive

import "fmt"

// Node is this archive's random id, as hex. It is made with the directory and stands in
// every delivery's id, so two gateways never give the same one.
func (a *Archive) Node() string { return fmt.Sprintf("%08x", a.log.node()) }
