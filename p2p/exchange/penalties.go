package exchange

import (
	"time"

	"shoal/p2p/penalty"
)

// forLies is the ban of members that lied. Disks rot and machines are repaired,
// so none is for ever.
func forLies() penalty.Terms {
	return penalty.Terms{First: 10 * time.Minute, Most: 24 * time.Hour, Members: 4096}
}

// forSilence is how long fills do not wait for a member that did not answer;
// it is asked all the same, and pardoned when it answers.
func forSilence() penalty.Terms {
	return penalty.Terms{First: 30 * time.Second, Most: 5 * time.Minute, Members: 1024}
}
