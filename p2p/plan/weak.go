package plan

import "time"

// Weak returns a member that should make way for another that the driver
// knows, if there is one: it has less than one in Tuning.Weak of the pieces
// that this node has. Slow members offer little that is not here already, and
// who has several of them in a plan with few places has too few others. It
// names one for each Tuning.WeakEvery, and never a volunteer to another: these
// must know each other. far says of which side: of other zones, or of the own.
func (p *Plan) Weak(now time.Duration, far bool) (Member, bool) {
	here := p.pieces - p.missing
	if now < p.weak || p.missing == 0 || here < p.pieces/p.tune.FirstPart {
		return 0, false
	}
	p.weak = now + p.tune.WeakEvery
	var weakest *member
	most := here / p.tune.Weak
	for _, m := range p.order {
		both := p.owners.volunteer && m.volunteer
		if m.far == far && m.has != nil && m.held < most && !m.asks() && !both {
			weakest, most = m, m.held
		}
	}
	if weakest == nil {
		return 0, false
	}
	return weakest.id, true
}
