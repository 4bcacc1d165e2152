package forward

import (
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind. kafka-go's Transport, which only tests use here,
// ends its own some time after it was closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/segmentio/kafka-go.(*connPool).discover"),
		goleak.IgnoreAnyFunction("github.com/segmentio/kafka-go.(*conn).run"))
}
