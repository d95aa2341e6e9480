package fakeas

import "sync"

// Gate holds answers back until a test opens it. Unlike with a delay, the order
// of events does not depend on the speed of the machine.
type Gate struct {
	arrived, open        chan struct{}
	arriveOnce, openOnce sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}), open: make(chan struct{})}
}

// Arrived is closed when the first answer waits at the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets all answers pass from now on. Further calls do nothing.
func (g *Gate) Open() { g.openOnce.Do(func() { close(g.open) }) }

// awaitGate waits until the gate opens or the server closes. A nil gate is open.
func (s *Server) awaitGate(g *Gate) {
	if g == nil {
		return
	}
	g.arriveOnce.Do(func() { close(g.arrived) })
	select {
	case <-g.open:
	case <-s.closing:
	}
}
