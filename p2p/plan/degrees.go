package plan

// Degrees is how many members a fill has to do with. A Plan takes whom it is
// given; drivers, and models of them, keep to these numbers.
type Degrees struct {
	// Ask is how many of the connected members a fill asks first whether they
	// have something. A connection for pieces to each of these is kept open:
	// simulated, the last of 1,000 nodes needs 0.01 to 0.02 s more without.
	Ask int
	// Volunteers is how many members of a swarm, on average, volunteer to ask
	// the origin for the others. Everybody has to see about the same ones to
	// agree on who fetches what, and they give each piece to each other first:
	// simulated, 24 instead of 14 made 1.55 of the bound of 1.43 for 1,000
	// nodes and 300 pieces. In a swarm of no more members all volunteer, and
	// everybody knows everybody.
	Volunteers int
	// Fewest: who finds fewer volunteers when its lookups are over becomes one.
	Fewest int
	// Degree is how many members a fill has in its plan, those that have the
	// whole blob aside. More make each wait for more: of 100 nodes with 500
	// pieces 64 made 1.48 of the bound of 1.17, 16 made 1.22. A volunteer has
	// up to VolunteerDegree other volunteers besides: owners that do not know
	// each other fetch the same runs.
	Degree, VolunteerDegree int
	// Followers is how many followers a fill tells its state, volunteers
	// among themselves aside. Without a bound little above Degree all who
	// arrive late choose those who answer, which began before, and nobody
	// chooses them: with 64, 100 nodes that started within 2 s needed 3.2
	// times the bound, and a third of the uplinks gave nothing.
	Followers int
}

// DefaultDegrees returns the numbers that nodes run with.
func DefaultDegrees() Degrees {
	return Degrees{Ask: 12, Volunteers: 14, Fewest: 8, Degree: 8, VolunteerDegree: 40, Followers: 10}
}

// Room reports whether a plan takes another member. both means that this node
// and that member volunteer; volunteers are the members in the plan for which
// that is so, others are the rest of those that have not the whole blob.
func (d Degrees) Room(both bool, volunteers, others int) bool {
	if both {
		return volunteers < d.VolunteerDegree
	}
	return others < d.Degree
}

// Small reports whether a swarm of so many members is one in which everybody
// knows everybody: no degree bounds it.
func (d Degrees) Small(members int) bool { return members <= d.Volunteers }
