package notify

import (
	"go.uber.org/zap"

	"penstock/expression"
)

// whereEnv is what the condition of an event rule sees. What is not known is empty, 0 or
// false.
type whereEnv struct {
	Provider     string     `expr:"provider"`
	Source       string     `expr:"source"`
	Tenant       string     `expr:"tenant"`
	Type         string     `expr:"type"`
	ProviderType string     `expr:"provider_type"`
	EventType    string     `expr:"event_type"` // the same, by match's name
	EventID      string     `expr:"event_id"`
	OrderID      string     `expr:"order_id"`
	PaymentID    string     `expr:"payment_id"`
	RequestID    string     `expr:"request_id"`
	Status       string     `expr:"status"` // the provider's word
	Outcome      string     `expr:"outcome"`
	Livemode     bool       `expr:"livemode"` // false only where it is known to be a test
	Amount       whereMoney `expr:"amount"`
}

type whereMoney struct {
	Minor    int    `expr:"minor"`
	Currency string `expr:"currency"`
}

func whereEnvOf(ev *Event) whereEnv {
	env := whereEnv{Provider: ev.Provider, Source: ev.Source, Tenant: ev.Tenant, Type: ev.Type, ProviderType: ev.EventType, EventType: ev.EventType,
		EventID: ev.EventID, OrderID: ev.OrderID, PaymentID: ev.PaymentID, RequestID: ev.RequestID, Status: ev.Status, Outcome: ev.Outcome,
		Livemode: ev.Livemode != "false", Amount: whereMoney{Currency: ev.Currency}}
	if env.Type == "" {
		env.Type = ev.EventType
	}
	if ev.AmountMinor != nil {
		env.Amount.Minor = int(*ev.AmountMinor)
	}
	return env
}

// CheckWhere says what is wrong with the condition of an event rule; the message begins with
// its place in the condition, "line:column: ".
func CheckWhere(where string) error {
	_, err := expression.Compile(where, whereEnv{})
	return err
}

// compileWhere compiles a condition that Check has passed.
func (r *rule) compileWhere() {
	if r.Where == "" {
		return
	}
	r.where, _ = expression.Compile(r.Where, whereEnv{}) // Check came first
	if r.where == nil {
		return
	}
	for name := range inDelivery {
		r.whereReads = r.whereReads || r.where.Uses(name)
	}
	r.whereReads = r.whereReads || r.where.Uses("source")
}

// holds says whether the rule's condition is true of the event; one that fails is not, and
// that is said once.
func (e *Engine) holds(r *rule, ev *Event) bool {
	if r.where == nil {
		return r.Where == ""
	}
	ok, err := r.where.Run(whereEnvOf(ev))
	if err != nil && !r.whereTold {
		r.whereTold = true
		e.log.Error("the condition of a notification fails, and the event is not told; said once", zap.String("rule", r.Name), zap.Error(expression.Placed(err)))
	}
	return ok && err == nil
}
