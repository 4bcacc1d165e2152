package dedupe

// Away says that Redis is configured and does not answer: repeats that only other nodes
// have seen are not known meanwhile.
func (d *Deduper) Away() bool { return d.redis != nil && d.redis.br.isOpen() }
