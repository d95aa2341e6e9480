package fakeas

import "sync"

// Gate holds answers back until a test opens it. Unlike a delay it makes the
// order of events independent of the speed of the machine.
type Gate struct {
	arrived, open        chan struct{}
	arriveOnce, openOnce sync.Once
}

// NewGate makes a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}), open: make(chan struct{})}
}

// Arrived is closed when the first answer waits at the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets all answers pass from now on. It may be called again.
func (g *Gate) Open() { g.openOnce.Do(func() { close(g.open) }) }

// hold waits until the gate is open, but not beyond Close. A nil gate is open.
func (s *Server) hold(g *Gate) {
	if g == nil {
		return
	}
	g.arriveOnce.Do(func() { close(g.arrived) })
	select {
	case <-g.open:
	case <-s.closing:
	}
}
