package provider

import (
	"errors"
	"fmt"
)

// compileOnce holds the rule that makes a memory of states safe: whoever can name a state
// can have a later event taken for its repeat, so only what is proved may name one.
func (d *Definition) compileOnce() error {
	for i := range d.Once {
		o := &d.Once[i]
		at := fmt.Sprintf("once[%d]", i)
		if len(o.Is) == 0 || len(o.Per) == 0 {
			return mistake(at, errors.New("is and per are wanted: which canonical types, and what names the change"))
		}
		if err := d.knownTypes(o.Is); err != nil {
			return mistake(at+".is", err)
		}
		if d.Scheme.Scheme == "none" {
			return mistake(at, errors.New("nothing of these deliveries is proved, so none of them may be taken for a repeat"))
		}
		for _, v := range o.Per {
			if !d.provesSender() && !d.provesValue(v) {
				return mistake(at+".per", fmt.Errorf("%s is not signed, so anyone may change it", v.Path[0]))
			}
		}
		when, err := d.conditions(o.When)
		if err != nil {
			return mistake(at, err)
		}
		for _, c := range when {
			if c.unsigned && !d.provesSender() {
				return mistake(at+".when", fmt.Errorf("%s is not signed, so anyone may change it", c.ref))
			}
		}
		d.prog.onceWhen = append(d.prog.onceWhen, when)
	}
	return nil
}

// provesSender says that a token proves the sender, and with him all that he says.
func (d *Definition) provesSender() bool {
	return d.Scheme.Scheme == "token" || d.Scheme.Scheme == "basic"
}

// openWords says that the type or the status is not signed.
func (pl *plan) openWords() bool {
	for _, f := range pl.unsigned {
		if f.name == "type" || f.name == "status" {
			return true
		}
	}
	return false
}

// knownTypes refuses words that fit no canonical type.
func (d *Definition) knownTypes(words Words) error {
	for _, w := range words {
		fits := false
		for t := range canonicalTypes {
			fits = fits || d.fitsWord(w, t)
		}
		if !fits {
			return fmt.Errorf("%q fits no canonical type", w)
		}
	}
	return nil
}

// state names what the event says, or "". Where anyone may change what the type hangs on,
// nothing is remembered: a changed copy of an old delivery would take the place of a change
// that is still to come.
func (c *reading) state(pl *plan, canonical, typ, status string) string {
	if len(c.d.Once) == 0 || c.unread || !c.d.provesSender() && (c.typeOpen || pl.openWords()) {
		return ""
	}
	keep := c.typeOpen
	defer func() { c.typeOpen = keep }()
	for i := range c.d.Once {
		o := &c.d.Once[i]
		if !c.d.fits(o.Is, canonical) || !c.hold(c.d.prog.onceWhen[i], typ, status) {
			continue
		}
		if len(c.identityValue(&o.Per[0])) == 0 {
			return ""
		}
		return canonical + "|" + c.hashed(o.Per, 1)
	}
	return ""
}
