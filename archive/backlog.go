package archive

// Backlog is about how many bytes of the log a sink has still to work through: from the
// lowest record that it needs to the end, before compression. It begins at the mark below
// that record, so some that are done count too. 0 where no sink is configured.
func (a *Archive) Backlog() (n int64) {
	keep := a.keep.Load()
	if keep == nil {
		return 0
	}
	from := (*keep)()
	if from > a.Synced() {
		return 0
	}
	j := a.log
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	for i, seg := range j.segs {
		if i+1 < len(j.segs) && j.segs[i+1].lowest() <= from {
			continue
		}
		off := int64(segmentHead)
		if seg.lowest() <= from {
			off = seg.enter(from)
		}
		n += max(seg.end.Load()-off, 0)
	}
	return n
}
