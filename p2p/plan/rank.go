package plan

// Rank returns how many of others come before self where one node at a time is
// to ask the origin for a blob. The numbers are those of Config and Join.
func Rank(key, self uint64, others ...uint64) int {
	n, own := 0, claim(key, everything, self)
	for _, o := range others {
		if claim(key, everything, o) > own {
			n++
		}
	}
	return n
}
