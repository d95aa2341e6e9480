package figures

import "fmt"

const (
	// nullCentre is how far from 1 the median of the anchor against itself may
	// be.
	nullCentre = 0.03
	// nullWidth is how far apart the quartiles may be.
	nullWidth = 0.25
)

// Doubts returns why the run is not to be believed: too many rounds of the gate
// were left out, or the anchor differs from its twin too much. There are none if
// the machine was quiet. CPU for each request is what is looked at, as nothing
// else is as steady.
func (r Report) Doubts() []string {
	quiet := r.Run
	quiet.Noisy = false
	var doubts []string
	for _, subject := range r.Subjects(r.Gate) {
		left := quiet.Ratio(r.Gate, subject, Slot.CPUPerRequest).Rounds
		if 2*left < r.GateRounds {
			doubts = append(doubts, fmt.Sprintf(
				"%s: %d of %d rounds are left, because other processes used more than %.0f %% of a CPU in the others", subject, left, r.GateRounds, 100*LeaveOutAbove))
		}
	}
	null := quiet.Ratio(r.Gate, r.Twin, Slot.CPUPerRequest)
	if null.Rounds > 0 && (null.Median < 1-nullCentre || null.Median > 1+nullCentre) {
		doubts = append(doubts, fmt.Sprintf("the same program against itself takes %.3f times the CPU in the median; %.2f to %.2f would do", null.Median, 1-nullCentre, 1+nullCentre))
	}
	if null.Rounds > 0 && null.High-null.Low > nullWidth {
		doubts = append(doubts, fmt.Sprintf("the same program against itself takes %.2f to %.2f times the CPU in half of the rounds; a range of %.2f would do", null.Low, null.High, nullWidth))
	}
	return doubts
}
