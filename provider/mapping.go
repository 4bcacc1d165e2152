package provider

import (
	"errors"
	"fmt"
	"strings"
)

// suggestedRows is canonical.md section 7: the map of a definition that brings none.
func suggestedRows() []Row {
	row := func(is CanonicalType, words ...string) Row {
		return Row{Status: words, Is: is, Source: "suggested default [U]"}
	}
	return []Row{
		row("payment.captured", "paid", "success", "successful", "completed", "approved", "captured"),
		row("payment.authorized", "authorized", "hold"),
		row("payment.pending", "pending", "processing", "waiting"),
		row("payment.failed", "failed", "declined", "error"),
		row("payment.canceled", "canceled", "cancelled"),
		row("payment.expired", "expired"),
		row("refund.succeeded", "refunded", "reversed"),
	}
}

func (d *Definition) compileRows() error {
	p := d.prog
	p.rows = d.Canonical
	if d.Canonical != nil && len(d.Canonical) == 0 {
		return mistake("canonical", errors.New("an empty map; for none write [{type: \"*\", is: provider}], for the suggested one leave it out"))
	}
	if d.Canonical == nil {
		p.rows = suggestedRows()
		d.IgnoreCase = true
	}
	p.byType = map[string][]int{}
	for i := range p.rows {
		r := &p.rows[i]
		at := fmt.Sprintf("canonical[%d]", i)
		if r.Is == "" {
			return mistake(at, errors.New("the row says nothing: is is missing"))
		}
		if len(r.Type)+len(r.Status)+len(r.When) == 0 {
			return mistake(at, errors.New("the row fits everything; state type (\"*\" for all), status or when"))
		}
		when, err := d.conditions(r.When)
		if err != nil {
			return mistake(at, err)
		}
		p.rowWhen = append(p.rowWhen, when)
		for _, t := range r.Type {
			if !strings.Contains(t, "*") {
				p.byType[d.fold(t)] = nil
			}
		}
	}
	for i := range p.rows {
		if r := &p.rows[i]; len(r.Type) == 0 || anyGlob(r.Type) {
			p.anyType = append(p.anyType, i)
		}
	}
	for t := range p.byType {
		for i := range p.rows {
			if r := &p.rows[i]; len(r.Type) == 0 || d.fits(r.Type, t) {
				p.byType[t] = append(p.byType[t], i)
			}
		}
	}
	return d.checkRows()
}

// checkRows refuses a row that can never be reached.
func (d *Definition) checkRows() error {
	var errs []error
	rows := d.prog.rows
	for i := range rows {
		for j := 0; j < i; j++ {
			if d.covers(&rows[j], &rows[i]) {
				errs = append(errs, mistake(fmt.Sprintf("canonical[%d]", i), fmt.Errorf("the row is never reached, row %d fits first", j+1)))
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (d *Definition) covers(a, b *Row) bool {
	return len(a.When) == 0 && d.coverWords(a.Type, b.Type) && d.coverWords(a.Status, b.Status)
}

func (d *Definition) coverWords(a, b Words) bool {
	if len(a) == 0 {
		return true
	}
	if len(b) == 0 {
		return false
	}
	for _, w := range b {
		if !d.fits(a, w) {
			return false
		}
	}
	return true
}

func anyGlob(w Words) bool {
	for _, s := range w {
		if strings.Contains(s, "*") {
			return true
		}
	}
	return false
}

func (d *Definition) fold(s string) string {
	if d.IgnoreCase {
		return strings.ToLower(s)
	}
	return s
}

// fits compares s with words, in which "*" stands for any run of characters.
func (d *Definition) fits(words Words, s string) bool {
	for _, w := range words {
		if d.fitsWord(w, s) {
			return true
		}
	}
	return false
}

func (d *Definition) fitsWord(w, s string) bool {
	if strings.IndexByte(w, '*') < 0 {
		if d.IgnoreCase {
			return strings.EqualFold(w, s)
		}
		return w == s
	}
	w, s = d.fold(w), d.fold(s)
	head, rest, _ := strings.Cut(w, "*")
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		mid, tail, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, mid)
		}
		i := strings.Index(s, mid)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(mid):], tail
	}
}

// canonical finds the event's type by the table.
func (c *reading) canonical(typ, status string) (CanonicalType, bool) {
	d := c.d
	rows, ok := d.prog.byType[d.fold(typ)]
	if !ok {
		rows = d.prog.anyType
	}
	for _, i := range rows {
		r := &d.prog.rows[i]
		if !ok && len(r.Type) > 0 && !d.fits(r.Type, typ) {
			continue
		}
		if len(r.Status) > 0 && !d.fits(r.Status, status) {
			continue
		}
		if len(r.When) > 0 && !c.hold(d.prog.rowWhen[i], typ, status) {
			continue
		}
		return r.Is, r.Is != "provider"
	}
	return "provider", false
}
