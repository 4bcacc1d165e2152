package archive

import "time"

// Stage is what a batch of the archive did, for whoever traces; see package trace, whose
// type this is. Both are aliases of one plain struct: neither package imports the other.
type Stage = struct {
	Name       string
	Start, End time.Time
	Records    int
	Bytes      int64
	Err        error
	Topic      string
	Links      []string
}

// traced tells of a commit. It is called only where somebody traces.
func (j *journal) traced(b *batch, err error) {
	name := "archive.commit"
	if j.o.Kind == logQuarantine {
		name = "quarantine.commit"
	}
	j.o.Trace(Stage{Name: name, Start: b.started, End: time.Now(), Records: int(b.count), Bytes: int64(b.size), Err: err})
}
