package config

// validateAck holds an ack policy to what can keep it.
func (d *decoder) validateAck(c *Config, s *Source, path string) {
	after := path + ".after"
	switch s.Ack.After {
	case AfterPublished:
		if c.Forward == nil || c.Forward.Kafka == nil {
			d.fail(d.where(after), after, "published wants Kafka, and none is configured", "add forward.kafka, or say archived")
		}
	default:
		for _, key := range []string{".deadline", ".max_waiting"} {
			if _, set := d.at[path+key]; set && s.Ack.After == AfterArchived {
				d.warn(d.where(path+key), path+key, "has no effect: the answer waits for nothing", "say after: published")
			}
		}
	}
}
