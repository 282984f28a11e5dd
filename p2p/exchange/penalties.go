package exchange

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

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

// lieAbout says to people what a member lied about; piece may be
// blobcache.ChainPiece, which is none.
func lieAbout(reason string, d digest.Digest, piece int) string {
	switch {
	case piece < 0:
		return fmt.Sprintf("%s of %s", reason, d)
	case reason == "piece":
		return fmt.Sprintf("piece %d of %s", piece, d)
	}
	return fmt.Sprintf("%s of piece %d of %s", reason, piece, d)
}
